"""3x3 layers of a sparse U-Net. Parameters belong to the layer, the arithmetic to an engine.

Each layer takes a spconv tensor (``SparseMap.to_spconv()``), rows for CPU inference
(:class:`~mmsparse.sparse.sites.RowMap`) or a :class:`~mmsparse.sparse.masked_dense.MaskedMap`, and
returns the same kind; all compute the same function. Convolutions have no bias and hold
``weight [D, 3, 3, C]`` (spconv's own layout; seen as ``[D, C, 3, 3]`` it is a channels-last
convolution weight).

``scratch`` names the memory that a result stands in until the name is written to again; only the
rows for CPU inference use it, everything else returns memory of its own.

``level`` names the rulebook: within one forward pass all layers of a level share the neighbor
tables that its first layer builds.

Source: SparseRefine (ECCV 2024), supplement sec. 1; Graham et al., "3D Semantic Segmentation with
Submanifold Sparse Convolutional Networks", CVPR 2018. Letters: ``C, D`` channels in and out.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.compat import find_spconv

from . import gathered, masked_dense
from .masked_dense import MaskedMap
from .sites import RowMap
from .winograd import affine_relu

if TYPE_CHECKING:
    from spconv.pytorch import SparseConvTensor

NORM_BLOCK = 1 << 18  # values that stay in cache between the norm and the ReLU
ActiveMap = Union['SparseConvTensor', MaskedMap, RowMap]


def rows_of(x: ActiveMap) -> Tensor:
    """Features of the active pixels, ``[N, C]``."""
    return x.rows() if isinstance(x, MaskedMap) else x.features  # also of a RowMap


def with_rows(x: ActiveMap, rows: Tensor) -> ActiveMap:
    """The same active pixels with other features, ``[N, C']``."""
    if isinstance(x, RowMap):
        return x.replace_rows(torch.cat([rows, rows.new_zeros(1, rows.shape[1])]))
    return x.replace_rows(rows) if isinstance(x, MaskedMap) else x.replace_feature(rows)


def concat(a: ActiveMap, b: ActiveMap) -> ActiveMap:
    """Channels of two maps over the same pixels."""
    if isinstance(a, MaskedMap):
        return masked_dense.concat(a, b)
    if isinstance(a, RowMap):
        return a.replace_rows(torch.cat([a.rows, b.rows], 1))
    return a.replace_feature(torch.cat([a.features, b.features], 1))


def add(a: ActiveMap, b: ActiveMap) -> ActiveMap:
    """Sum of two maps over the same pixels."""
    if isinstance(a, MaskedMap):
        return MaskedMap(a.data + b.data, a.mask)
    if isinstance(a, RowMap):
        return a.replace_rows(a.rows + b.rows)
    return a.replace_feature(a.features + b.features)


def is_spconv(x: ActiveMap) -> bool:
    """Whether these are rows of spconv's."""
    return not isinstance(x, (MaskedMap, RowMap))


def density(x: SparseConvTensor) -> float:
    """Share of active cells; known on the host."""
    return len(x.indices) / (x.batch_size * math.prod(x.spatial_shape))


def to_masked(x: SparseConvTensor) -> MaskedMap:
    """The same features as a dense map; differentiable."""
    return masked_dense.masked_map(x.features, x.indices, x.spatial_shape, x.batch_size)


def from_masked(x: MaskedMap, like: SparseConvTensor) -> SparseConvTensor:
    """Features of a dense map as rows of spconv's, in the order of ``like``; differentiable."""
    return like.replace_feature(x.data.permute(0, 2, 3, 1)[like.indices.long().unbind(1)])


def pad_channels(x: SparseConvTensor, weight: Tensor) -> tuple[SparseConvTensor, Tensor]:
    """Channels in, of rows and weight ``[D, 3, 3, C]``, filled with zeros to a multiple of 8.

    spconv's half-precision kernels for tensor cores ask for it; the result is the same.
    """
    missing = -weight.shape[3] % 8
    if not missing:
        return x, weight
    return x.replace_feature(F.pad(x.features, (0, missing))), F.pad(weight, (0, missing))


class _Conv3x3(nn.Module):
    """What the three convolutions share: a weight, its initialization, the call into spconv."""

    def __init__(self, in_channels: int, out_channels: int, level: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.level = level
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-s, s), s = 1/sqrt(9 C): what SparseRefine was trained from."""
        bound = (9 * self.in_channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def _spconv(self, x: SparseConvTensor, key: str, **kind) -> SparseConvTensor:
        """Run spconv's convolution with our weight.

        The object built here holds no weight and costs microseconds; it is built per call because
        the algorithm depends on where the rows are: implicit GEMM exists on CUDA only.
        """
        find_spconv()
        from spconv.core import ConvAlgo
        from spconv.pytorch.conv import SparseConvolutionBase

        # spconv does not look at strides, and `model.to(memory_format=...)` changes them.
        weight = self.weight.contiguous()
        # The training flag chooses between kernels with and without a backward.
        training = self.training or self._needs_grad(x)
        if x.features.dtype == torch.float16:
            x, weight = pad_channels(x, weight)
        algo = ConvAlgo.MaskImplicitGemm if x.features.is_cuda else ConvAlgo.Native
        conv = SparseConvolutionBase(
            2, weight.shape[3], self.out_channels, 3, bias=False,
            indice_key=f'{key}{self.level}', algo=algo, **kind)
        return conv._conv_forward(training, x, weight, None)

    def _needs_grad(self, x: SparseConvTensor) -> bool:
        return torch.is_grad_enabled() and (
            x.features.requires_grad or self.weight.requires_grad)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, level={self.level}'


class SubMConv2d(_Conv3x3):
    """3x3 convolution whose output lives on the input's pixels (submanifold)."""

    def forward(self, x: ActiveMap, *, norm: ActiveBatchNorm | None = None,
                plus: ActiveMap | None = None, scratch: str | None = None) -> ActiveMap:
        """``C`` to ``D`` channels, same pixels, same row order.

        Args:
            x: the pixels.
            norm: applied to the result.
            plus: added to the result.
        """
        if isinstance(x, RowMap):  # where both cost no pass of their own
            affine = None if norm is None else norm.scale_and_shift()
            return gathered.subm_conv(x, self.weight, affine=affine, plus=plus, scratch=scratch)
        y = (masked_dense.subm_conv(x, self.weight) if isinstance(x, MaskedMap) else
             self._spconv(x, 'subm', subm=True))
        y = y if norm is None else norm(y)
        return y if plus is None else add(y, plus)


class DownConv2d(_Conv3x3):
    """3x3 convolution, stride 2: a coarse cell is active if any pixel it reads is.

    Args:
        padding: 1 halves a size rounding up, every pixel has a parent. 0 is the mapping of the
            paper's code, ``(n - 3) // 2 + 1``; the last row and column of an even grid have no
            parent.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, level)
        self.padding = padding

    def has_output(self, x: ActiveMap) -> bool:
        """Whether any coarse cell is active. Without padding this syncs with the device."""
        if isinstance(x, MaskedMap):
            return True
        if isinstance(x, RowMap):
            return len(x.sites.coarse(self.padding)) > 0
        if self.padding:
            return len(x.indices) > 0
        h, w = ((n - 3) // 2 * 2 + 3 for n in x.spatial_shape)
        return bool(((x.indices[:, 1] < h) & (x.indices[:, 2] < w)).any())

    def forward(self, x: ActiveMap, scratch: str | None = None) -> ActiveMap:
        """``C`` to ``D`` channels on the coarse pixels; needs :meth:`has_output`."""
        if isinstance(x, MaskedMap):
            return masked_dense.down_conv(x, self.weight, self.padding)
        if isinstance(x, RowMap):
            return gathered.down_conv(x, self.weight, self.padding, scratch)
        return self._spconv(x, 'down', stride=2, padding=self.padding)


class UpConv2d(_Conv3x3):
    """Inverse of the level's :class:`DownConv2d`: back onto exactly the pixels it read."""

    def __init__(self, in_channels: int, out_channels: int, level: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, level)
        self.padding = padding

    def reset_parameters(self) -> None:
        """By fan-out, as transposed convolutions are: U(-s, s), s = 1/sqrt(9 D)."""
        bound = (9 * self.out_channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: ActiveMap, fine: ActiveMap, *, join: bool = False,
                scratch: str | None = None) -> ActiveMap:
        """``C`` coarse to ``D`` fine channels, on the pixels and row order of ``fine``.

        Args:
            join: give the channels of ``fine`` first, then the result's.
        """
        if isinstance(x, MaskedMap):
            y = masked_dense.up_conv(x, self.weight, self.padding, fine.mask)
        elif isinstance(x, RowMap):
            return gathered.up_conv(x, self.weight, self.padding, fine, join, scratch)
        else:
            y = self._spconv(x, 'down', inverse=True)
        return concat(fine, y) if join else y


class Linear1x1(nn.Linear):
    """1x1 convolution without bias: one matrix product on the rows."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, bias=False)

    def forward(self, x: ActiveMap, scratch: str | None = None) -> ActiveMap:
        """``C`` to ``D`` channels, same pixels."""
        if isinstance(x, MaskedMap):
            return MaskedMap(F.conv2d(x.data, self.weight[:, :, None, None]), x.mask)
        if isinstance(x, RowMap):
            out = x.sites.memory((len(x.rows), self.out_features), x.rows, scratch)
            return x.replace_rows(torch.mm(x.rows, self.weight.T, out=out))
        return x.replace_feature(F.linear(x.features, self.weight))


class ActiveBatchNorm(nn.BatchNorm1d):
    """Batch norm over the active pixels of the whole batch, then ReLU.

    In training one row has no variance; such a call uses the running statistics and leaves them
    as they are.
    """

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The two ``[C]`` that stand for the norm once it is trained."""
        scale = self.weight / (self.running_var + self.eps).sqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: ActiveMap, scratch: str | None = None) -> ActiveMap:
        """Same shape; ReLU in place on the normalized copy, never on the input."""
        if isinstance(x, MaskedMap) and not self.training:
            data = F.batch_norm(x.data, self.running_mean, self.running_var, self.weight,
                                self.bias, False, 0.0, self.eps)
            return MaskedMap(data.relu_() * x.mask, x.mask)
        if isinstance(x, RowMap):
            out = x.sites.memory(x.rows.shape, x.rows, scratch)
            affine, step = self.scale_and_shift(), max(1, NORM_BLOCK // x.rows.shape[1])
            for rows, result in zip(x.rows.split(step), out.split(step), strict=True):
                affine_relu(rows, affine, out=result)
            out[-1] = 0
            return x.replace_rows(out)
        rows = rows_of(x)
        if self.training and len(rows) < 2:
            rows = F.batch_norm(rows, self.running_mean, self.running_var, self.weight,
                                self.bias, False, 0.0, self.eps)
        else:
            rows = super().forward(rows)
        return with_rows(x, rows.relu_())
