"""Rename the weights of the authors' SwiftNet for a SwiftNet config of this package.

For people who hold a checkpoint of either release; none is distributed here. The config decides
what the weights must fit: swiftnet-ss-cvpr for the CVPR release, swiftnet-ss-2020 for the later
one (taps after the ReLU in both), swiftnet-pyr3 for its pyramid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conversion import run

if TYPE_CHECKING:
    from torch import Tensor

# The authors' names and ours, in the order of trial; level numbers are handled apart.
RENAMED = [
    (r'backbone\.spp\.spp\.spp_bn\.(norm|conv)\.', r'neck.spp.project.\1.'),
    (r'backbone\.spp\.spp\.spp(\d)\.(norm|conv)\.', r'neck.spp.levels.\1.\2.'),
    (r'backbone\.spp\.spp\.spp_fuse\.(norm|conv)\.', r'neck.spp.fuse.\1.'),
    (r'backbone\.upsample\.(\d)\.bottleneck\.(norm|conv)\.', r'neck.upsample.\1.bottleneck.\2.'),
    (r'backbone\.upsample\.(\d)\.blend_conv\.(norm|conv)\.', r'neck.upsample.\1.blend.\2.'),
    (r'backbone\.upsample_blends\.(\d)\.blend_conv\.(norm|conv)\.', r'neck.blends.\1.\2.'),
    (r'logits\.norm\.', 'decode_head.norm.'),
    (r'logits\.conv\.', 'decode_head.conv_seg.'),
]
DROPPED = re.compile(r'(.*\.)?(img_mean|img_std)$')
LEVEL_NORM = re.compile(r'backbone\.((?:layer\d\.\d+\.)?bn\d)\.(\d)\.(\w+)$')
BOTTLENECK = re.compile(r'backbone\.upsample_bottlenecks\.(\d)\.(norm|conv)\.(\w+)$')


def rename(key: str, pyramid: bool, plain: bool) -> str | None:
    """Our name of one entry; ``None`` for what is not needed.

    Args:
        key: the authors' name.
        pyramid: the model is a pyramid.
        plain: its bottlenecks are convolutions without a norm.
    """
    if DROPPED.match(key):
        return None
    if found := BOTTLENECK.match(key):
        stage, part, entry = found.groups()  # counted from the coarsest there
        middle = '' if plain else f'{part}.'
        return f'neck.bottlenecks.{3 - int(stage)}.{middle}{entry}'
    if found := LEVEL_NORM.match(key):
        name, level, entry = found.groups()
        if level == '0':
            return f'backbone.encoder.{name}.{entry}'
        return f'backbone.level_norms.{int(level) - 1}.{name.replace(".", "/")}.{entry}'
    for pattern, name in RENAMED:
        renamed, count = re.subn(f'^{pattern}', name, key)
        if count:
            return renamed
    return key.replace('backbone.', 'backbone.encoder.', 1) if pyramid else key


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names."""
    bottlenecks = [k for k in state if 'upsample_bottlenecks' in k]
    plain = not any('.norm.' in k for k in bottlenecks)
    renamed = {rename(key, bool(bottlenecks), plain): value for key, value in state.items()}
    renamed.pop(None, None)
    return renamed


def advice(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """What does not fit, in terms of the configs' settings."""
    lines = []
    pooled = [any(k.startswith('neck.spp') for k in keys) for keys in (wanted, found)]
    if pooled[0] != pooled[1]:
        lines.append('one of the two is a pyramid, the other has a single scale')
    head = 'decode_head.conv_seg.weight'
    if head in found and head in wanted:
        ours, theirs = wanted[head].shape, found[head].shape
        if ours != theirs:
            lines.append(f'the classifier: {theirs[2]}x{theirs[3]} and {theirs[0]} classes in the '
                         f'weights, {ours[2]}x{ours[3]} and {ours[0]} in the config '
                         '(decode_head.kernel_size, num_classes)')
        bias = head.replace('weight', 'bias')
        if (bias in found) != (bias in wanted):
            lines.append('the classifier has a bias only in the '
                         f'{"weights" if bias in found else "config"} (decode_head.bias)')
    levels = [{k.split('.')[2] for k in keys if k.startswith('backbone.level_norms.')}
              for keys in (wanted, found)]
    if levels[0] != levels[1]:
        lines.append(f'norms of {len(levels[1]) + 1} level(s) in the weights, of '
                     f'{len(levels[0]) + 1} in the config (backbone.levels, per_level_norm)')
    return lines


if __name__ == '__main__':
    run(__doc__, 'swiftnet-ss-cvpr_r18_1xb14-53k_cityscapes-768x768.py', convert, advice)
