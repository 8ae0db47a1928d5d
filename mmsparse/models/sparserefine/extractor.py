"""The sparse U-Net that reads full-resolution color at the selected pixels.

Source: SparseRefine (ECCV 2024), sec. 3.3 and supplement sec. 1. Letters: ``N`` active pixels of
the batch, ``C`` channels, ``L`` levels.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.eager import eager
from mmsparse.losses import zero_loss
from mmsparse.registry import MODELS
from mmsparse.sparse import (
    ActiveBatchNorm,
    ActiveMap,
    BiasReLU,
    DownConv2d,
    Linear1x1,
    MaskedMap,
    RowMap,
    SparseMap,
    SpconvMap,
    SubMConv2d,
    Topology,
    TracedRowMap,
    TrainedRowMap,
    UpConv2d,
)
from mmsparse.sparse.backends import MacCount, scale_and_shift

ENGINES = ('auto', 'sparse', 'dense')
# Share of active cells above which, for inference on CUDA, a dense convolution on the whole map is
# taken to beat spconv's on rows. On an H200 it hardly matters in half precision, and saves up to
# 38 % of the U-Net's time in float32 (docs/benchmarks/nvidia-h200.md).
DENSE_ABOVE = 0.5


class ResidualBlock(nn.Module):
    """Pre-activation block: BN, ReLU, conv, BN, ReLU, conv, plus the raw input.

    The shortcut is a 1x1 map without bias where channels change, else the identity; nothing
    follows the sum.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ActiveBatchNorm(in_channels)
        self.conv1 = SubMConv2d(in_channels, out_channels)
        self.norm2: ActiveBatchNorm | BiasReLU = ActiveBatchNorm(out_channels)
        self.conv2 = SubMConv2d(out_channels, out_channels)
        self.shortcut = (None if in_channels == out_channels else
                         Linear1x1(in_channels, out_channels))

    def forward(self, x: ActiveMap) -> ActiveMap:
        """``in_channels`` to ``out_channels``, same pixels."""
        y = self.conv1(self.norm1(x))
        y = self.conv2(self.norm2(y))
        return y.add(x if self.shortcut is None else self.shortcut(x))

    @torch.no_grad()
    def fold_norm(self) -> None:
        """Let the first convolution take up the scale of the norm after it, for inference."""
        if isinstance(self.norm2, BiasReLU):
            return
        scale, shift = scale_and_shift(self.norm2)
        self.conv1.weight.mul_(scale[:, None, None, None])
        self.norm2 = BiasReLU(shift)


class UNetLevel(nn.Module):
    """One level: two blocks down, the levels below, two blocks up (deepest: two blocks only)."""

    def __init__(self, channels: Sequence[int], level: int, padding: int) -> None:
        super().__init__()
        c = channels[level]
        self.encoder = nn.Sequential(ResidualBlock(c, c), ResidualBlock(c, c))
        self.is_deepest = level == len(channels) - 1
        if self.is_deepest:
            return
        d = channels[level + 1]
        self.down_norm = ActiveBatchNorm(c)
        self.down = DownConv2d(c, d, padding)
        self.below = UNetLevel(channels, level + 1, padding)
        self.up_norm = ActiveBatchNorm(d)
        self.up = UpConv2d(d, c, padding)
        self.decoder = nn.Sequential(ResidualBlock(2 * c, c), ResidualBlock(c, c))

    def forward(self, x: ActiveMap) -> ActiveMap:
        """``channels[level]`` in and out, same pixels."""
        skip = self.encoder(x)
        if self.is_deepest:
            return skip
        coarse = self.down(self.down_norm(skip))
        fine = (self._nothing(skip) if coarse is None else
                self.up(self.up_norm(self.below(coarse)), skip))
        return self.decoder(skip.concat(fine))

    def _nothing(self, skip: ActiveMap) -> ActiveMap:
        """Zeros, where no coarse cell is active.

        Without padding, a mask that lies only in the last row or column of an even grid has none.
        Zero times the parameters keeps them in the graph, so that distributed training need not
        search for unused ones.
        """
        idle = [p for module in (self.down_norm, self.down, self.below, self.up_norm, self.up)
                for p in module.parameters()]
        return skip.replace_rows(skip.rows() * 0 + zero_loss(idle))


@MODELS.register_module()
class SparseUNet(BaseModule):
    """Sparse residual U-Net over the active pixels.

    With ``c`` the channels of a level, a level has ``119 c^2 + 24 c`` parameters and the deepest
    ``36 c^2 + 8 c``, plus stem and last norm: 79,334,560 for the six default stages and
    19,811,488 for the first five.

    Args:
        in_channels: features per pixel that come in; 3 is RGB.
        channels: width of each level; every level halves the resolution.
        down_padding: padding of the stride-2 convolutions. 1 (default) gives every pixel a
            parent and works on any grid; 0 is the index mapping of the paper's code.
        engine: how the same function is computed. ``'auto'`` (default): on the CPU by gathers and
            matrix products, for inference also by Winograd tiles where these cost less; on CUDA
            by spconv on rows, for inference by dense convolutions below a level that is half
            full. ``'sparse'``: by spconv at every level. ``'dense'``: by dense convolutions at
            every level, without spconv.
        init_cfg: as in mmengine.

    Raises:
        ValueError: an argument is out of range; at the call, channels do not match or the image
            is smaller than the deepest level needs.
    """

    def __init__(self,
                 *,
                 in_channels: int = 3,
                 channels: Sequence[int] = (32, 64, 128, 256, 512, 1024),
                 down_padding: int = 1,
                 engine: str = 'auto',
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if in_channels < 1 or not channels or min(channels) < 1:
            raise ValueError('SparseUNet needs in_channels >= 1 and at least one positive entry in '
                             f'channels, got in_channels={in_channels}, channels={channels}')
        if down_padding not in (0, 1):
            raise ValueError(f'SparseUNet.down_padding must be 0 or 1, got {down_padding!r}')
        if engine not in ENGINES:
            raise ValueError(f'SparseUNet.engine must be one of {ENGINES}, got {engine!r}')
        self.in_channels = in_channels
        self.out_channels = channels[0]
        self.num_levels = len(channels)
        self.down_padding = down_padding
        self.engine = engine
        # Padded, n pixels become ceil(n / 2) and the deepest stride must fit; unpadded, they
        # become (n - 3) // 2 + 1 and the deepest level must keep one cell.
        self.min_size = 2 ** (len(channels) - 1) if down_padding else 2 ** len(channels) - 1
        self.stem = SubMConv2d(in_channels, channels[0])
        self.levels = UNetLevel(channels, 0, down_padding)
        self.norm = ActiveBatchNorm(channels[0])

    @property
    def reach(self) -> int:
        """How far away a pixel can lie, along rows or columns, to change the features of another.

        A level's blocks reach 4 of its pixels down and 4 up, and the way through a coarser level
        that reaches ``r`` of its own, 2 r + 2: one at either stride-2 convolution.
        """
        reach = 4
        for _ in range(self.num_levels - 1):
            reach = 4 + 2 * reach + 2 + 4
        return reach + 1  # the stem

    # spconv runs on its own memory, through functions that dynamo cannot see into: tried layer by
    # layer it makes a hundred graphs, and others for every other number of pixels.
    @eager
    def forward(self, sparse_map: SparseMap) -> Tensor:
        """Features of the active pixels; one graph break under ``torch.compile``.

        On the CPU in the dtype of autocast, where that is on; else in that of the weights: spconv's
        eval path ignores autocast and then meets unequal dtypes, and it knows no bfloat16.

        Args:
            sparse_map: ``N`` active pixels with ``in_channels`` features.

        Returns:
            ``[N, channels[0]]`` in the row order of ``sparse_map``; ``[0, channels[0]]`` if no
            pixel is active.
        """
        if sparse_map.features.shape[1] != self.in_channels:
            raise ValueError(f'SparseUNet.in_channels is {self.in_channels}, but the map has '
                             f'{sparse_map.features.shape[1]} channels')
        height, width = sparse_map.topology.spatial_shape
        if min(height, width) < self.min_size:
            raise ValueError(f'SparseUNet needs images of at least {self.min_size} x '
                             f'{self.min_size} pixels for its deepest level, got {height} x '
                             f'{width}; use fewer channels (levels) or larger images')
        device, dtype = sparse_map.features.device.type, self._dtype(sparse_map)
        if torch.compiler.is_exporting():  # one graph for every number of pixels
            return self._run(TracedRowMap.of(sparse_map)).rows()
        if not len(sparse_map):
            return sparse_map.features.new_zeros(0, self.out_channels, dtype=dtype)
        with torch.autocast(device, enabled=False):
            return self._run(self._start(sparse_map.replace_features(
                sparse_map.features.to(dtype)))).rows()

    def _run(self, x: ActiveMap) -> ActiveMap:
        x = self.stem(x)
        x.rows()  # now, and once: the first block reads it twice
        return self.norm(self.levels(x))

    def _dtype(self, sparse_map: SparseMap) -> torch.dtype:
        """What to compute in."""
        on_rows = self.engine == 'auto' and not sparse_map.features.is_cuda
        return (torch.get_autocast_dtype('cpu') if on_rows and torch.is_autocast_enabled('cpu')
                else self.stem.weight.dtype)

    def _start(self, sparse_map: SparseMap) -> ActiveMap:
        """The pixels in the form that the engine computes on."""
        if self.engine == 'dense':
            return MaskedMap.of(sparse_map)
        features = sparse_map.features
        learns = self.training or (torch.is_grad_enabled() and (
            features.requires_grad or self.stem.weight.requires_grad))
        if self.engine == 'sparse' or features.is_cuda:
            switches = self.engine == 'auto' and not self.training
            return SpconvMap.of(sparse_map, DENSE_ABOVE if switches else math.inf)
        return TrainedRowMap.of(sparse_map) if learns else RowMap.of(sparse_map, features.dtype)

    def fuse(self, dtype: torch.dtype | None = None) -> None:
        """Fold the norms that come right after a convolution into it, for inference alone.

        Args:
            dtype: what autocast will let ``engine='auto'`` compute in: convolutions then keep their
                weights in it, which otherwise are converted at every call.
        """
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.fold_norm()
        if dtype is not None and self.engine == 'auto':
            for module in self.modules():
                if isinstance(module, (SubMConv2d, DownConv2d, UpConv2d, Linear1x1)):
                    module.to(dtype)

    @torch.no_grad()
    def macs(self, mask: Tensor) -> int:
        """Multiply-accumulates on these pixels, exactly, as :class:`.MacCount` counts them.

        Args:
            mask: bool ``[B, H, W]``.
        """
        count = MacCount(Topology(mask))
        self._run(count)
        return count.total.macs
