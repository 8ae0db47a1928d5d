"""Rename the weights of the authors' SwiftNet for a SwiftNet config of this package.

For people who hold a checkpoint of either release; none is distributed here. The config decides
what the weights must fit, and docs/swiftnet.md names the one of every file. A config whose model
would compute another function with these weights is refused, be it only for the colors it expects,
and the right one is named.
"""

from __future__ import annotations

import math
import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from conversion import run

if TYPE_CHECKING:
    from conversion import State
    from mmengine.config import ConfigDict
    from torch import nn

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'swiftnet'
# Of ImageNet, RGB from 0 to 255: what the files of 2019, which hold no statistics, were trained on.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
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
STATISTICS = re.compile(r'(?:.*\.)?img_(mean|std)$')
LEVEL_NORM = re.compile(r'backbone\.((?:layer\d\.\d+\.)?bn\d)\.(\d)\.(\w+)$')
# With a norm before it in 2019, a bare convolution in 2020.
BOTTLENECK = re.compile(r'backbone\.upsample_bottlenecks\.(\d)\.((?:(?:norm|conv)\.)?\w+)$')


def rename(key: str, pyramid: bool) -> str:
    """Our name of one entry.

    Args:
        key: the authors' name.
        pyramid: the model is a pyramid.
    """
    if found := BOTTLENECK.match(key):
        stage, entry = found.groups()  # counted from the coarsest there
        return f'neck.bottlenecks.{3 - int(stage)}.{entry}'
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


def is_pyramid(theirs: State) -> bool:
    """Whether the authors' state dict is a pyramid's."""
    return any('upsample_bottlenecks' in key for key in theirs)


def convert(theirs: State) -> State:
    """The state dict under our names, without color statistics: :func:`settings` checks these."""
    pyramid = is_pyramid(theirs)
    return {rename(key, pyramid): value for key, value in theirs.items()
            if not STATISTICS.match(key)}


def structure(wanted: State, found: State) -> list[str]:
    """Shapes that do not fit, in terms of the config's settings."""
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


def settings(theirs: State, model: nn.Module, options: ConfigDict) -> list[str]:
    """Settings that no shape shows, and with which the model would compute another function.

    Args:
        theirs: the authors' state dict; one of 2020 holds color statistics.
        model: of the config.
        options: that it was built from.
    """
    colors = {found[1]: value.flatten().tolist() for key, value in theirs.items()
              if (found := STATISTICS.match(key))}
    release = '2020' if colors else 'cvpr'
    pyramid = is_pyramid(theirs)
    encoder = 'backbone.encoder' if pyramid else 'backbone'
    needed = {
        f'{encoder}.tap': 'pre' if pyramid and release == '2020' else 'post',
        f'{encoder}.relu_before_sum': 'backbone.layer1.0.conv3.weight' in theirs,
        'decode_head.align_corners': False}
    if pyramid:
        needed |= {'backbone.subsample': 'bicubic',
                   'backbone.rounding': 'floor' if release == '2020' else 'ceil'}
        if release == '2020':  # the levels of 2019 came from outside the model
            needed['backbone.antialias'] = False
    else:
        needed |= {'neck.up_mode': 'bilinear', 'neck.spp_grids': (8, 4, 2)}
    lines = [f'{key} must be {value!r} for these weights, the config has {found!r}'
             for key, value in needed.items() if (found := setting(model, key)) != value]
    preprocessor = options.get('data_preprocessor', {})
    for key, value in (IMAGENET | colors).items():
        found = list(preprocessor.get(key) or ())
        if len(found) != 3 or not all(map(close, found, value)):
            value = [round(v, 4) for v in value]
            lines.append(f'data_preprocessor.{key} must be {value} for these weights, the config '
                         f'has {found}')
    if not preprocessor.get('bgr_to_rgb'):
        lines.append('data_preprocessor.bgr_to_rgb must be True: these weights see RGB')
    return lines


def setting(model: nn.Module, key: str) -> object:
    """An attribute of an attribute …, ``None`` where another class has none (a stock ResNet)."""
    return reduce(lambda part, name: getattr(part, name, None), key.split('.'), model)


def close(a: float, b: float) -> bool:
    """Whether two numbers are one, once written as float32 and once in decimals."""
    return math.isclose(a, b, rel_tol=1e-5)


def preset(theirs: State) -> str:
    """Which config these weights are of."""
    count = {name: len({match[1] for key in theirs if (match := re.match(pattern, key))})
             for name, pattern in (('blends', r'backbone\.upsample_blends\.(\d+)\.'),
                                   ('blocks', r'backbone\.layer3\.(\d+)\.'))}
    release = '2020' if any(map(STATISTICS.match, theirs)) else 'cvpr'
    kind = f'pyr{count["blends"] - 2}' if is_pyramid(theirs) else 'ss'
    if release == '2020' and 'logits.conv.bias' not in theirs:
        release += '-k3'
    depth = (50 if 'backbone.layer1.0.conv3.weight' in theirs else
             {2: 18, 6: 34}.get(count['blocks']))
    found = list(CONFIGS.glob(f'swiftnet-{kind}-{release}_r{depth}_*.py'))
    return (f'the config of these weights is configs/swiftnet/{found[0].name}' if found else
            'no config in configs/swiftnet is of these weights')


if __name__ == '__main__':
    run(__doc__, 'swiftnet-ss-cvpr_r18_1xb14-53k_cityscapes-768x768.py', convert, structure,
        settings, preset)
