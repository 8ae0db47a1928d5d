"""Rename the weights of CRM's authors for a CRM config of this package.

For people who hold the checkpoint (its licence does not allow commercial use); none is distributed
here. The encoder's unused last stage is dropped. Names inside the fusion are not known here: its
convolutions are told apart by their shapes, the norms go with the convolution before them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conversion import run

if TYPE_CHECKING:
    from torch import Tensor


def rename_fusion(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of the fusion under our names.

    Raises:
        ValueError: a convolution has no place in our fusion.
    """
    places = {(64, 64, 1, 1): 'branches.0', (64, 256, 1, 1): 'branches.1',
              (128, 1024, 1, 1): 'branches.2', (256, 256, 3, 3): 'blend'}
    renamed: dict[str, Tensor] = {}
    place, index, modules = None, {}, {}
    for key, value in state.items():
        module, entry = key.rsplit('.', 1)
        if value.ndim == 4:
            if tuple(value.shape) not in places:
                raise ValueError(f'{key} of shape {list(value.shape)} has no place in the fusion')
            place = places[tuple(value.shape)]
            renamed[f'neck.{place}.0.{entry}'] = value
            index[place] = 0
        elif place is None:
            raise ValueError(f'{key} comes before any convolution')
        else:
            if module not in modules:
                # convolution 0, norm 1, ReLU 2, norm 3
                modules[module] = f'neck.{place}.{1 + 2 * index[place]}'
                index[place] += 1
            renamed[f'{modules[module]}.{entry}'] = value
    return renamed


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names.

    Raises:
        ValueError: an entry is not one of CRM's.
    """
    renamed, fusion = {}, {}
    for key, value in state.items():
        if key.startswith('feats.'):
            if not key.startswith('feats.layer4.'):
                renamed[f'backbone.{key.removeprefix("feats.")}'] = value
        elif key.startswith('aspp'):
            fusion[key] = value
        elif found := re.match(r'imnet\.layers\.([02468])\.(weight|bias)$', key):
            renamed[f'head.layers.{int(found[1]) // 2}.{found[2]}'] = value
        else:
            raise ValueError(f"{key} is not one of CRM's entries (feats.*, aspp*, imnet.layers.*)")
    return renamed | rename_fusion(fusion)


if __name__ == '__main__':
    run(__doc__, 'crm_r50_2xb6-45k_saliency-224x224.py', convert)
