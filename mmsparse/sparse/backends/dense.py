"""Sparse layers as dense convolutions times a mask: same function, any torch backend.

It serves as test oracle and as the way without spconv. Letters: ``B`` images, ``C, D``
channels, ``H, W`` size.

What keeps it equal to rows (SparseRefine supplement, sec. 1; submanifold convolution: Graham et
al., CVPR 2018): everything outside the mask is exactly zero before and after each layer.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ..maps import SparseMap
from ..topology import Topology
from .active_map import ActiveMap

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class MaskedMap(ActiveMap):
    """A dense map that is zero outside its mask.

    Attributes:
        data: ``[B, C, H, W]``; zero wherever the mask is false.
        topology: the pixels.
    """

    data: Tensor
    topology: Topology

    @classmethod
    def of(cls, pixels: SparseMap) -> MaskedMap:
        """The same features; differentiable."""
        topology = pixels.topology
        return cls(dense(pixels.features, topology.coordinates, topology.mask), topology)

    @property
    def mask(self) -> Tensor:
        """Active pixels, bool ``[B, 1, H, W]``."""
        return self.topology.mask[:, None]

    @override
    def rows(self) -> Tensor:
        return self.data.permute(0, 2, 3, 1)[self.topology.coordinates]

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        topology = self.topology
        return type(self)(dense(rows, topology.coordinates, topology.mask), topology)

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        data = F.conv2d(self.data, weight.permute(0, 3, 1, 2), padding=1)
        return type(self)(data * self.mask, self.topology)

    @override
    def down_conv(self, weight: Tensor, padding: int) -> MaskedMap | None:
        coarse = self.topology.coarse(padding)
        if not len(coarse):
            return None
        data = F.conv2d(self.data, weight.permute(0, 3, 1, 2), stride=2, padding=padding)
        return MaskedMap(data * coarse.mask[:, None], coarse)

    @override
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        sizes = zip(self.topology.spatial_shape, coarse.data.shape[2:], strict=True)
        lost = [fine - (2 * (cells - 1) + 3 - 2 * padding) for fine, cells in sizes]
        data = F.conv_transpose2d(coarse.data, weight.permute(3, 0, 1, 2), stride=2,
                                  padding=padding, output_padding=lost)
        return type(self)(data * self.mask, self.topology)

    @override
    def linear(self, weight: Tensor) -> Self:
        return type(self)(F.conv2d(self.data, weight[:, :, None, None]), self.topology)

    @override
    def add(self, other: Self) -> Self:
        return type(self)(self.data + other.data, self.topology)

    @override
    def concat(self, other: Self) -> Self:
        return type(self)(torch.cat([self.data, other.data], 1), self.topology)

    @override
    def norm_relu(self, norm: nn.BatchNorm1d) -> Self:
        if norm.training:  # over the active pixels
            return super().norm_relu(norm)
        data = F.batch_norm(self.data, norm.running_mean, norm.running_var, norm.weight, norm.bias,
                            False, 0.0, norm.eps)
        return type(self)(data.relu_() * self.mask, self.topology)

    @override
    def bias_relu(self, bias: Tensor) -> Self:
        return type(self)((self.data + bias[:, None, None]).relu_() * self.mask, self.topology)


def dense(rows: Tensor, place: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """Rows ``[N, C]`` as a map ``[B, C, H, W]``, zero elsewhere; differentiable.

    Args:
        rows: the features.
        place: image, row and column of each, int64 ``[N]``.
        mask: ``[B, H, W]``, for its size.
    """
    data = rows.new_zeros(*mask.shape, rows.shape[1])
    # index_put is differentiable in its values
    return data.index_put(place, rows).permute(0, 3, 1, 2)
