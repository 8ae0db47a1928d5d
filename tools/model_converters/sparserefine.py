"""Rename the weights of the authors' SparseRefine for a SparseRefine config of this package.

For people who hold weights of a refiner that the released code has trained; none is distributed
here. What is written holds the refiner alone, and its learned selector if there is one: that code
reads the low-resolution logits from files, and so does the config that fits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conversion import run

from mmsparse.compat import turns_channels

if TYPE_CHECKING:
    from mmengine.config import ConfigDict
    from torch import Tensor, nn

# The authors' names and ours. Levels are nested in both, `1.4.1.3` and `below` once for each.
BLOCK = {'1.0': 'norm1', '1.2': 'conv1', '1.3': 'norm2', '1.5': 'conv2', '0': 'shortcut'}
LEVEL = {'4.1.0': 'down_norm', '4.1.2': 'down', '4.1.4': 'up_norm', '4.1.6': 'up'}
for theirs, ours in (('0', 'encoder.0'), ('2', 'encoder.1'), ('6', 'decoder.0'),
                     ('8', 'decoder.1')):
    LEVEL |= {f'{theirs}.{a}': f'{ours}.{b}' for a, b in BLOCK.items()}
UNET = {'0': 'stem', '2': 'norm'}
NESTED = re.compile(r'1((?:\.4\.1\.3)*)\.([\d.]+)')
REST = {
    'classifier': 'decode_head.classifier',
    'ensembler.attn.0': 'decode_head.ensembler.gate.0',
    'ensembler.attn.2': 'decode_head.ensembler.gate.2',
    'ensembler.fuser.0': 'decode_head.ensembler.classifier.0',
    'ensembler.fuser.2': 'decode_head.ensembler.classifier.2',
    **{f'selector.conv.{i}': f'selector.stem.{i}' for i in (0, 2)},
    **{f'selector.mlp.{i}': f'selector.classifier.{i}' for i in (0, 2, 4)},
}


def rename(module: str) -> str | None:
    """Our name of one of the authors' modules; ``None`` if it is not one."""
    if not module.startswith('backbone.net.'):
        return REST.get(module)
    place = module.removeprefix('backbone.net.')
    if place in UNET:
        return f'decode_head.extractor.{UNET[place]}'
    found = NESTED.fullmatch(place)
    if not found or found[2] not in LEVEL:
        return None
    below = 'below.' * (len(found[1]) // len('.4.1.3'))
    return f'decode_head.extractor.levels.{below}{LEVEL[found[2]]}'


def weight(kernel: Tensor) -> Tensor:
    """TorchSparse's kernel as ours: taps are counted down the columns there, inputs come first."""
    if kernel.ndim == 2:
        return kernel.T.contiguous()
    if len(kernel) != 9:
        raise ValueError(f'a kernel must have 9 taps, 3 x 3, got {len(kernel)}')
    return kernel.unflatten(0, (3, 3)).permute(3, 1, 0, 2).contiguous()  # [D, row, column, C]


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names.

    Raises:
        ValueError: an entry is not one of SparseRefine's.
    """
    renamed = {}
    for key, value in state.items():
        module, _, entry = key.rpartition('.')
        name = rename(module)
        if name is None:
            raise ValueError(f"{key} is not one of SparseRefine's entries: backbone.net.*, "
                             f'{", ".join(REST)}')
        if entry == 'kernel':
            entry, value = 'weight', weight(value)
        elif name.startswith('selector.classifier.') and entry == 'weight':
            value = value[..., None, None]  # linear there, a 1x1 convolution here
        renamed[f'{name}.{entry}'] = value
    return renamed


def settings(state: dict[str, Tensor], model: nn.Module, cfg: ConfigDict) -> list[str]:
    """What fits any config, but computes something else than the released code."""
    lines = []
    padding = model.decode_head.extractor.down_padding
    if padding:
        lines.append('decode_head.extractor.down_padding must be 0 for these weights, the config '
                     f'has {padding}')
    if turns_channels(model.data_preprocessor):
        lines.append('data_preprocessor.bgr_to_rgb must be False for these weights, which have '
                     'seen BGR')
    return lines


if __name__ == '__main__':
    run(__doc__, 'sparserefine_fcn-hr48_released_8xb4-46k_cityscapes-1024x2048.py', convert,
        settings=settings, parts=('decode_head.', 'selector.'))
