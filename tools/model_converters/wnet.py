"""Rename the released weights of W-Net for arteries and veins, and leave out "uncertain".

The file (MIT, agaldran/lwnet) tells background, uncertain, artery and vein; the result gives
background, artery and vein. The first U-Net's four scores stay: the second one reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conversion import run

if TYPE_CHECKING:
    from conversion import State

KEPT = [0, 2, 3]  # of the released classes
RENAMED = {'unet1.final.': 'backbone.final1.', 'unet2.final.': 'decode_head.conv_seg.',
           '.up_layer.block.0.': '.up_layer.', '.conv_bridge_layer.block.': '.conv_bridge_layer.'}


def convert(theirs: State) -> State:
    """The state dict under our names.

    Raises:
        ValueError: it is not that of a W-Net with four classes.
    """
    renamed = {}
    for key, value in theirs.items():
        if not key.startswith(('unet1.', 'unet2.')):
            raise ValueError(f"{key} is not one of W-Net's entries (unet1.*, unet2.*)")
        for old, new in RENAMED.items():
            key = key.replace(old, new)
        if key.startswith('decode_head.'):
            if len(value) != 4:
                raise ValueError(f'unet2.final has {len(value)} classes, must be 4: background, '
                                 'uncertain, artery, vein')
            value = value[KEPT]
        renamed[f'backbone.{key}' if key.startswith('unet') else key] = value
    return renamed


if __name__ == '__main__':
    run(__doc__, 'configs/wnet/wnet_hrf-1024x1104.py', convert)
