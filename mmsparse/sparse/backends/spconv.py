"""Sparse convolutions by spconv."""
from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from mmsparse.compat import find_spconv

from ..maps import SparseMap
from ..topology import Topology
from .active_map import ActiveMap
from .dense import MaskedMap, dense

if TYPE_CHECKING:
    from spconv.pytorch import SparseConvTensor
    from typing_extensions import Self


@dataclass(frozen=True)
class SpconvMap(ActiveMap):
    """Rows in a spconv tensor, which also keeps spconv's own tables for the levels.

    Attributes:
        tensor: the rows; of a coarse level in spconv's order.
        level: how many strided convolutions lie above.
        dense_above: share of active cells above which a coarse level becomes a
            :class:`.MaskedMap`.
        cells: by level, what its strided convolution gave, without features; shared by all maps
            that follow from one.
    """

    tensor: SparseConvTensor
    level: int = 0
    dense_above: float = math.inf
    cells: dict[int, SparseConvTensor] = field(default_factory=dict)

    @classmethod
    def of(cls, pixels: SparseMap, dense_above: float = math.inf) -> SpconvMap:
        """The same features; tables are made anew and live as long as maps of this pass."""
        topology = pixels.topology
        tensor = find_spconv().SparseConvTensor(
            pixels.features.contiguous(), topology.indices, list(topology.spatial_shape),
            topology.batch_size)
        return cls(tensor, dense_above=dense_above)

    @override
    def rows(self) -> Tensor:
        return self.tensor.features

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        return replace(self, tensor=self.tensor.replace_feature(rows))

    @override
    def linear(self, weight: Tensor) -> Self:
        return self.replace_rows(F.linear(self.rows(), weight))

    @override
    def add(self, other: Self) -> Self:
        return self.replace_rows(self.rows() + other.rows())

    @override
    def concat(self, other: Self) -> Self:
        return self.replace_rows(torch.cat([self.rows(), other.rows()], 1))

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        return replace(self, tensor=convolve(self.tensor, weight, f'subm{self.level}', subm=True))

    @override
    def down_conv(self, weight: Tensor, padding: int) -> ActiveMap | None:
        if not self._has_coarse(padding):
            return None
        tensor = convolve(self.tensor, weight, f'down{self.level}', stride=2, padding=padding)
        coarse = replace(self, tensor=tensor, level=self.level + 1)
        self.cells[self.level] = tensor.replace_feature(tensor.features[:0].detach())
        share = len(tensor.indices) / (tensor.batch_size * math.prod(tensor.spatial_shape))
        return coarse.to_masked() if share > self.dense_above else coarse

    def _has_coarse(self, padding: int) -> bool:
        """Whether any coarse cell is active. Without padding this syncs with the device."""
        indices = self.tensor.indices
        if padding:
            return len(indices) > 0
        h, w = ((n - 3) // 2 * 2 + 3 for n in self.tensor.spatial_shape)
        return bool(((indices[:, 1] < h) & (indices[:, 2] < w)).any())

    @override
    def up_conv(self, coarse: Self | MaskedMap, weight: Tensor, padding: int) -> Self:
        if isinstance(coarse, MaskedMap):  # back to rows, in spconv's order
            cells = self.cells[self.level]
            tensor = cells.replace_feature(
                coarse.data.permute(0, 2, 3, 1)[cells.indices.long().unbind(1)])
        else:
            tensor = coarse.tensor
        return replace(self, tensor=convolve(tensor, weight, f'down{self.level}', inverse=True))

    def to_masked(self) -> MaskedMap:
        """The same features as a dense map; differentiable."""
        tensor = self.tensor
        mask = torch.zeros(tensor.batch_size, *tensor.spatial_shape, dtype=torch.bool,
                           device=tensor.indices.device)
        place = tensor.indices.long().unbind(1)
        mask[place] = True
        return MaskedMap(dense(tensor.features, place, mask), Topology(mask))


def convolve(x: SparseConvTensor, weight: Tensor, key: str, **kind: Any) -> SparseConvTensor:
    """Run spconv's convolution with our weight ``[D, 3, 3, C]``.

    The object built here holds no weight and costs microseconds; it is built per call because the
    algorithm depends on where the rows are: implicit GEMM exists on CUDA only.

    Args:
        key: names spconv's tables: those of a strided convolution serve its inverse.
        kind: ``subm``, ``inverse``, ``stride``, ``padding``, as spconv takes them.
    """
    spconv = find_spconv()
    # spconv does not look at strides, and `model.to(memory_format=...)` changes them.
    weight = weight.contiguous()
    # Chooses between kernels with and without a backward.
    training = torch.is_grad_enabled() and (x.features.requires_grad or weight.requires_grad)
    if x.features.dtype == torch.float16:
        x, weight = pad_channels(x, weight)
    algo = (spconv.ConvAlgo.MaskImplicitGemm if x.features.is_cuda else
            spconv.ConvAlgo.Native)
    conv = spconv.SparseConvolutionBase(
        2, weight.shape[3], len(weight), 3, bias=False, indice_key=key, algo=algo, **kind)
    return conv._conv_forward(training, x, weight, None)


def pad_channels(x: SparseConvTensor, weight: Tensor) -> tuple[SparseConvTensor, Tensor]:
    """Channels in, of rows and weight ``[D, 3, 3, C]``, filled with zeros to a multiple of 8.

    spconv's half-precision kernels for tensor cores ask for it; the result is the same.
    """
    missing = -weight.shape[3] % 8
    if not missing:
        return x, weight
    return x.replace_feature(F.pad(x.features, (0, missing))), F.pad(weight, (0, missing))
