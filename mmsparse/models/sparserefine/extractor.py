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

from mmsparse.registry import MODELS
from mmsparse.sparse import (
    ActiveBatchNorm,
    DownConv2d,
    Linear1x1,
    SparseMap,
    SubMConv2d,
    UpConv2d,
    coarser,
    strided_pairs,
    submanifold_pairs,
)
from mmsparse.sparse.layers import (
    ActiveMap,
    concat,
    density,
    from_masked,
    is_spconv,
    rows_of,
    to_masked,
    with_rows,
)

ENGINES = ('auto', 'sparse', 'dense')
# Share of active cells above which, for inference on CUDA, a dense convolution on the whole map is
# taken to beat spconv's on rows. A guess: not measured on a GPU yet.
DENSE_ABOVE = 0.5


class ResidualBlock(nn.Module):
    """Pre-activation block: BN, ReLU, conv, BN, ReLU, conv, plus the raw input.

    The shortcut is a 1x1 map without bias where channels change, else the identity; nothing
    follows the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int,
                 scratch: str | None = None) -> None:
        super().__init__()
        self.scratch = scratch
        self.norm1 = ActiveBatchNorm(in_channels)
        self.conv1 = SubMConv2d(in_channels, out_channels, level)
        self.norm2 = ActiveBatchNorm(out_channels)
        self.conv2 = SubMConv2d(out_channels, out_channels, level)
        self.shortcut = (None if in_channels == out_channels else
                         Linear1x1(in_channels, out_channels))

    def forward(self, x: ActiveMap) -> ActiveMap:
        """``in_channels`` to ``out_channels``, same pixels."""
        main = self.conv1(self.norm1(x, 'normed'), norm=self.norm2, scratch='hidden')
        plus = x if self.shortcut is None else self.shortcut(x, 'normed')  # free again
        return self.conv2(main, plus=plus, scratch=self.scratch)


class UNetLevel(nn.Module):
    """One level: two blocks down, the levels below, two blocks up (deepest: two blocks only)."""

    def __init__(self, channels: Sequence[int], level: int, padding: int) -> None:
        super().__init__()
        c = channels[level]
        # Scratch memory: 'input' is what a level's or decoder's first block reads, 'block' its
        # result, 'normed' and 'hidden' lie within a block. A name is free when its reader is done;
        # only what the encoder returns, the skip, is needed while the levels below compute.
        self.encoder = nn.Sequential(
            ResidualBlock(c, c, level, 'block'), ResidualBlock(c, c, level))
        self.is_deepest = level == len(channels) - 1
        if self.is_deepest:
            return
        d = channels[level + 1]
        self.down_norm = ActiveBatchNorm(c)
        self.down = DownConv2d(c, d, level, padding)
        self.below = UNetLevel(channels, level + 1, padding)
        self.up_norm = ActiveBatchNorm(d)
        self.up = UpConv2d(d, c, level, padding)
        self.decoder = nn.Sequential(
            ResidualBlock(2 * c, c, level, 'block'), ResidualBlock(c, c, level, 'input'))

    def forward(self, x: ActiveMap, dense_above: float) -> ActiveMap:
        """``channels[level]`` in and out, same pixels.

        The levels below a spconv tensor compute on a dense map as soon as the share of active
        cells is greater than ``dense_above``.
        """
        skip = self.encoder(x)
        if self.is_deepest:
            return skip
        if self.down.has_output(skip):
            y = self.down(self.down_norm(skip, 'normed'), 'input')
            if is_spconv(y) and density(y) > dense_above:
                y = from_masked(self.below(to_masked(y), dense_above), y)
            else:
                y = self.below(y, dense_above)
            y = self.up(self.up_norm(y, 'normed'), skip, join=True, scratch='input')
        else:
            # Without padding, a mask that lies only in the last row or column of an even grid
            # has no coarse cell at all. Zero times the parameters keeps them in the graph, so
            # that distributed training need not search for unused ones.
            idle = [p for m in (self.down_norm, self.down, self.below, self.up_norm, self.up)
                    for p in m.parameters()]
            nothing = rows_of(skip) * 0 + sum(p.sum() * 0 for p in idle)
            y = concat(skip, with_rows(skip, nothing))
        return self.decoder(y)


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
        engine: how the same function is computed. ``'auto'`` (default): for inference on the CPU
            by gathers and Winograd tiles, whichever costs less at a level; for inference on CUDA
            by spconv on rows, and by dense convolutions below a level that is half full; in
            training by spconv. ``'sparse'``: by spconv at every level. ``'dense'``: by dense
            convolutions at every level, without spconv.
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
        self.stem = SubMConv2d(in_channels, channels[0], level=0)
        self.levels = UNetLevel(channels, 0, down_padding)
        self.norm = ActiveBatchNorm(channels[0])

    # spconv runs on its own memory, through functions that dynamo cannot see into: tried layer by
    # layer it makes a hundred graphs, and others for every other number of pixels.
    @torch.compiler.disable
    def forward(self, sparse_map: SparseMap) -> Tensor:
        """Features of the active pixels; one graph break under ``torch.compile``.

        Runs outside autocast in the dtype of the weights: spconv's eval path ignores autocast and
        then meets unequal dtypes, and it knows no bfloat16.

        Args:
            sparse_map: ``N`` active pixels with ``in_channels`` features.

        Returns:
            ``[N, channels[0]]`` in the row order of ``sparse_map``; ``[0, channels[0]]`` if no
            pixel is active.
        """
        if sparse_map.features.shape[1] != self.in_channels:
            raise ValueError(f'SparseUNet.in_channels is {self.in_channels}, but the map has '
                             f'{sparse_map.features.shape[1]} channels')
        if min(sparse_map.spatial_shape) < self.min_size:
            raise ValueError(f'SparseUNet needs images of at least {self.min_size} x '
                             f'{self.min_size} pixels for its deepest level, got '
                             f'{sparse_map.spatial_shape[0]} x {sparse_map.spatial_shape[1]}; use '
                             'fewer channels (levels) or larger images')
        dtype = self.stem.weight.dtype
        if not len(sparse_map):
            return sparse_map.features.new_zeros(0, self.out_channels, dtype=dtype)
        with torch.autocast(sparse_map.features.device.type, enabled=False):
            sparse_map = sparse_map.replace_features(sparse_map.features.to(dtype))
            x = self.stem(self._start(sparse_map), scratch='input')
            return rows_of(self.norm(self.levels(x, self._dense_above(sparse_map))))

    def _dense_above(self, sparse_map: SparseMap) -> float:
        """From which share of active cells on a level is computed densely."""
        # In training the backward of spconv is as fast as that of dense convolutions even on full
        # levels (2 CPU cores), and batch norm over the active cells of a dense map slower.
        switch = self.engine == 'auto' and sparse_map.features.is_cuda and not self.training
        return DENSE_ABOVE if switch else math.inf

    def _start(self, sparse_map: SparseMap) -> ActiveMap:
        """The pixels in the form that the engine computes on."""
        if self.engine == 'dense':
            return sparse_map.to_masked()
        learns = self.training or (torch.is_grad_enabled() and (
            sparse_map.features.requires_grad or self.stem.weight.requires_grad))
        if self.engine == 'auto' and not learns and not sparse_map.features.is_cuda:
            return sparse_map.to_rows()
        return sparse_map.to_spconv()

    @torch.no_grad()
    def macs(self, mask: Tensor) -> int:
        """Multiply-accumulates on these pixels, exactly, as sparse convolutions count them.

        Every convolution costs its pairs of active pixels x channels in x channels out, a 1x1 map
        its pixels x channels in x channels out; norms and sums are not counted. Winograd tiles
        need fewer, dense convolutions more.

        Args:
            mask: bool ``[B, H, W]``.
        """
        pairs, strided, rows = [], [], []
        for level in range(self.num_levels):
            pairs.append(submanifold_pairs(mask))
            rows.append(int(mask.sum()))
            if level < self.num_levels - 1:
                strided.append(strided_pairs(mask, self.down_padding))
                mask = coarser(mask, self.down_padding)
        total = 0
        for module in self.modules():
            if isinstance(module, SubMConv2d):
                total += pairs[module.level] * module.weight[:, 0, 0].numel()
            elif isinstance(module, (DownConv2d, UpConv2d)):
                total += strided[module.level] * module.weight[:, 0, 0].numel()
            elif isinstance(module, ResidualBlock) and isinstance(module.shortcut, Linear1x1):
                total += rows[module.conv1.level] * module.shortcut.weight.numel()
        return total
