"""SwiftNet's decoders: a ladder over the taps of one scale, and over those of an image pyramid.

Source: Orsic et al., CVPR 2019, sec. 3 and supplement sec. 1. Letters: ``B`` images, ``C``
channels, ``H, W`` size, ``h, w`` size of the stride-32 map, ``L`` pyramid levels.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.utils import InvertedResidual
from torch import Tensor, nn

from mmsparse.registry import MODELS

SPP_MOMENTUM = 0.005
UP_BLOCKS = ('conv3', 'conv1', 'group8', 'dwsep', 'invres')
UP_MODES = ('bilinear', 'nearest')
BOTTLENECKS = ('conv1', 'brc3')
KAIMING = [dict(type='Kaiming', layer='Conv2d'),
           dict(type='Constant', val=1, layer=['_BatchNorm'])]


class BNReLUConv(nn.Sequential):
    """Batch norm, ReLU, convolution of odd kernel: keeps the size.

    Args:
        in_channels, out_channels, kernel_size, bias: of the convolution.
        momentum: of the norm.
        conv: another module in place of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *,
                 bias: bool = False, momentum: float = 0.1, conv: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2,
                              bias=bias) if conv is None else conv


def up_block(kind: str, channels: int) -> BNReLUConv:
    """What follows the sum in an upsampling module (supplement Tables 1 and 2).

    Args:
        kind: ``'conv3'`` of the main models; ``'conv1'``; ``'group8'``, 3x3 in 8 groups;
            ``'dwsep'``, 3x3 depthwise and 1x1; ``'invres'``, an inverted residual of expansion 2.
        channels: in and out.
    """
    def conv(size: int, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(channels, channels, size, padding=size // 2, groups=groups, bias=False)

    inner = dict(
        conv3=lambda: conv(3),
        conv1=lambda: conv(1),
        group8=lambda: conv(3, groups=8),
        dwsep=lambda: nn.Sequential(conv(3, groups=channels), conv(1)),
        invres=lambda: InvertedResidual(channels, channels, stride=1, expand_ratio=2))[kind]()
    return BNReLUConv(channels, channels, 3, conv=inner)


def pool_matrix(size: int, cells: int, like: Tensor) -> Tensor:
    """``[cells, size]``: row ``i`` averages ``[floor(i n / g), ceil((i + 1) n / g))``."""
    matrix = like.new_zeros(cells, size)
    for i in range(cells):
        start, end = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def grid_pool(x: Tensor, rows: int, columns: int) -> Tensor:
    """Adaptive average pooling, ``[B, C, rows, columns]``.

    While a model is exported as two products with constant matrices, which is the same: adaptive
    pooling to a grid that does not divide the size has no ONNX operator.
    """
    if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
        height, width = (int(n) for n in x.shape[2:])
        return pool_matrix(height, rows, x) @ x @ pool_matrix(width, columns, x).T
    return F.adaptive_avg_pool2d(x, (rows, columns))


class SpatialPyramidPooling(BaseModule):
    """Context from grids of a fixed number of rows, as many columns as the map's shape asks for.

    Args:
        in_channels: of the stride-32 tap.
        channels: out; every grid gets a third of it.
        grids: rows of each grid.
        mode: how grids are resized to the map, ``'bilinear'`` or ``'nearest'``.
    """

    def __init__(self, in_channels: int, channels: int, grids: Sequence[int], mode: str) -> None:
        super().__init__()
        thin = channels // 3
        self.grids = tuple(grids)
        self.mode = mode
        self.project = BNReLUConv(in_channels, channels, 1, momentum=SPP_MOMENTUM)
        self.levels = nn.ModuleList(
            BNReLUConv(channels, thin, 1, momentum=SPP_MOMENTUM) for _ in grids)
        self.fuse = BNReLUConv(channels + len(self.grids) * thin, channels, 1,
                               momentum=SPP_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, h, w]`` to ``[B, channels, h, w]``."""
        x = self.project(x)
        height, width = (int(n) for n in x.shape[2:])
        maps = [x]
        for rows, level in zip(self.grids, self.levels, strict=True):
            columns = max(1, round(rows * width / height))  # ties to even
            maps.append(resize_to(level(grid_pool(x, rows, columns)), (height, width), self.mode))
        return self.fuse(torch.cat(maps, 1))


def resize_to(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """``[B, C, *size]``, bilinear without aligned corners or nearest."""
    options = dict(align_corners=False) if mode == 'bilinear' else {}
    return F.interpolate(x, size=tuple(int(n) for n in size), mode=mode, **options)


def check(name: str, key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f'{name}.{key} must be one of {allowed}, got {value!r}')


class UpsamplingModule(nn.Module):
    """Resize to the tap's size, add the projected tap, blend.

    Args:
        tap_channels: of the tap.
        channels: of the decoder.
        block: of :func:`up_block`.
        mode: ``'bilinear'`` or ``'nearest'``.
    """

    def __init__(self, tap_channels: int, channels: int, block: str, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.bottleneck = BNReLUConv(tap_channels, channels, 1)
        self.blend = up_block(block, channels)

    def forward(self, x: Tensor, tap: Tensor) -> Tensor:
        """``[B, channels, h, w]`` and a finer ``[B, tap_channels, H, W]`` to the latter's size."""
        return self.blend(resize_to(x, tap.shape[2:], self.mode) + self.bottleneck(tap))


@MODELS.register_module()
class SwiftNetNeck(BaseModule):
    """The single-scale decoder: spatial pyramid pooling, then three upsampling modules.

    Args:
        in_channels: of the four taps, stride 4 to 32.
        channels: of the decoder.
        spp_grids: rows of each pooling grid.
        use_spp: without, a 1x1 convolution stands in its place (an ablation of the paper).
        up_block: ``'conv3'``, ``'conv1'``, ``'group8'``, ``'dwsep'`` or ``'invres'``.
        up_mode: how maps are resized, ``'bilinear'`` or ``'nearest'`` (faster on embedded devices,
            1.7 points of mIoU less in the paper).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self,
                 *,
                 in_channels: Sequence[int],
                 channels: int = 128,
                 spp_grids: Sequence[int] = (8, 4, 2),
                 use_spp: bool = True,
                 up_block: str = 'conv3',
                 up_mode: str = 'bilinear',
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or KAIMING)
        name = type(self).__name__
        check(name, 'up_block', up_block, UP_BLOCKS)
        check(name, 'up_mode', up_mode, UP_MODES)
        if len(in_channels) != 4:
            raise ValueError(f'{name}.in_channels must name the channels of four taps, got '
                             f'{in_channels!r}')
        self.up_mode = up_mode
        self.spp_grids = tuple(spp_grids)
        self.spp = (SpatialPyramidPooling(in_channels[-1], channels, spp_grids, up_mode)
                    if use_spp else BNReLUConv(in_channels[-1], channels, 1))
        self.upsample = nn.ModuleList(
            UpsamplingModule(c, channels, up_block, up_mode) for c in reversed(in_channels[:-1]))

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decoder maps ``[B, channels, H / s, W / s]`` of stride 32, 16, 8 and 4, in this order."""
        *lateral, x = taps
        maps = [self.spp(x)]
        for module, tap in zip(self.upsample, reversed(lateral), strict=True):
            maps.append(module(maps[-1], tap))
        return tuple(maps)


@MODELS.register_module()
class PyramidFusionNeck(BaseModule):
    """The decoder of the pyramid: taps of equal stride are added, whichever level they come from.

    Node ``j``, of stride ``4 * 2^j``, adds the projected taps of stage ``s`` (1 to 4) and level
    ``l`` with ``l + s - 1 = j``. From the coarsest node down, a map is resized to the next node,
    added and blended by a 3x3 convolution.

    Args:
        in_channels: of the four taps of a level.
        levels: ``L``.
        channels: of the decoder.
        bottleneck: how a tap is projected, by one convolution per stage that all levels share:
            ``'conv1'``, a plain 1x1 (the 2020 release), or ``'brc3'``, batch norm, ReLU and 3x3
            (the CVPR release).

    Raises:
        ValueError: an argument is out of range; at the call, the number of taps is not ``4 L``.
    """

    def __init__(self,
                 *,
                 in_channels: Sequence[int],
                 levels: int = 2,
                 channels: int = 128,
                 bottleneck: str = 'conv1',
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or KAIMING)
        name = type(self).__name__
        check(name, 'bottleneck', bottleneck, BOTTLENECKS)
        if len(in_channels) != 4 or levels not in (2, 3):
            raise ValueError(f'{name} needs the channels of four taps and 2 or 3 levels, got '
                             f'in_channels={in_channels!r}, levels={levels!r}')
        self.levels = levels
        self.bottlenecks = nn.ModuleList(
            nn.Conv2d(c, channels, 1, bias=False) if bottleneck == 'conv1' else
            BNReLUConv(c, channels, 3) for c in in_channels)
        self.blends = nn.ModuleList(BNReLUConv(channels, channels, 3) for _ in range(levels + 2))

    def nodes(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Sums of the projected taps, fine to coarse, ``L + 3`` of them."""
        if len(taps) != 4 * self.levels:
            raise ValueError(f'PyramidFusionNeck of {self.levels} levels needs '
                             f'{4 * self.levels} taps, got {len(taps)}')
        nodes: dict[int, Tensor] = {}
        for number, tap in enumerate(taps):
            level, stage = divmod(number, 4)
            projected = self.bottlenecks[stage](tap)
            at = level + stage
            nodes[at] = nodes[at] + projected if at in nodes else projected
        return [nodes[at] for at in sorted(nodes)]

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decoder maps ``[B, channels, H / s, W / s]``, coarse to fine, the last of stride 4.

        Args:
            taps: ``4 L`` of them, level by level, stride 4 to 32 within a level.
        """
        *finer, x = self.nodes(taps)
        maps = [x]
        for blend, node in zip(self.blends, reversed(finer), strict=True):
            maps.append(blend(resize_to(maps[-1], node.shape[2:], 'bilinear') + node))
        return tuple(maps)
