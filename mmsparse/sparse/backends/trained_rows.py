"""Rows of features for training on the CPU.

The gathers and matrix products of :mod:`.gathered` with their gradients, which are gathers and
matrix products as well: spconv's CPU kernels go tap by tap instead. Letters: ``N, M`` pixels read
and written, ``k`` taps, ``C, D`` channels in and out.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ..maps import SparseMap
from ..topology import Topology
from . import gathered
from .active_map import ActiveMap
from .arena import Arena
from .gathered import tap_matrix

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class TrainedRowMap(ActiveMap):
    """Features of the active pixels on the CPU, differentiable.

    Attributes:
        features: ``[N, C]`` in raster order.
        topology: the pixels.
    """

    features: Tensor
    topology: Topology

    @classmethod
    def of(cls, pixels: SparseMap) -> TrainedRowMap:
        """The same features."""
        return cls(pixels.features, pixels.topology)

    @override
    def rows(self) -> Tensor:
        return self.features

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        return replace(self, features=rows)

    @override
    def linear(self, weight: Tensor) -> Self:
        return self.replace_rows(F.linear(self.features, weight.to(self.features.dtype)))

    @override
    def add(self, other: Self) -> Self:
        return self.replace_rows(self.features + other.features)

    @override
    def concat(self, other: Self) -> Self:
        return self.replace_rows(torch.cat([self.features, other.features], 1))

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        return self.replace_rows(SubmConv.apply(self.features, weight, self.topology))

    @override
    def down_conv(self, weight: Tensor, padding: int) -> TrainedRowMap | None:
        coarse = self.topology.coarse(padding)
        if not len(coarse):
            return None
        return TrainedRowMap(
            DownConv.apply(self.features, weight, self.topology, padding), coarse)

    @override
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        return self.replace_rows(
            UpConv.apply(coarse.features, weight, self.topology, padding))


class SubmConv(torch.autograd.Function):
    """3x3 convolution onto the same pixels, weight ``[D, 3, 3, C]``."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, pixels: Topology) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pixels = pixels
        return product(x, pixels.neighbors, tap_matrix(weight.to(x.dtype)))

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), table = ctx.saved_tensors, ctx.pixels.neighbors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            # What a pixel reads through a tap reads that pixel through the opposite one.
            back = backward_matrix(weight.to(grad.dtype).flatten(1, 2).flip(1))
            grad_x = product(grad, table, back)
        if ctx.needs_input_grad[1]:
            grad_weight = outer_product(x, table, grad).T.reshape(weight.shape)
        return grad_x, grad_weight, None


class DownConv(torch.autograd.Function):
    """3x3 convolution of stride 2 onto the coarse cells, weight ``[D, 3, 3, C]``."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, fine: Topology, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.fine, ctx.padding = fine, padding
        return product(x, fine.read_by(padding), tap_matrix(weight.to(x.dtype)))

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), fine, padding = ctx.saved_tensors, ctx.fine, ctx.padding
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            taps_of, grad_x = weight.to(grad.dtype).flatten(1, 2), torch.empty_like(x)
            for group in fine.readers(padding):
                grad_x[group.pixels] = product(
                    grad, group.cells, backward_matrix(taps_of[:, group.taps]))
        if ctx.needs_input_grad[1]:
            table = fine.read_by(padding)
            grad_weight = outer_product(x, table, grad).T.reshape(weight.shape)
        return grad_x, grad_weight, None, None


class UpConv(torch.autograd.Function):
    """Inverse of :class:`DownConv` onto the pixels it read, weight ``[D, 3, 3, C]``."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, fine: Topology, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.fine, ctx.padding = fine, padding
        taps_of = weight.to(x.dtype).flatten(1, 2)
        out = x.new_empty(len(fine), len(weight))
        for group in fine.readers(padding):
            out[group.pixels] = product(x, group.cells, tap_matrix(taps_of[:, group.taps]))
        return out

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), table = ctx.saved_tensors, ctx.fine.read_by(ctx.padding)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, table, backward_matrix(weight.to(grad.dtype).flatten(1, 2)))
        if ctx.needs_input_grad[1]:
            d, _, _, c = weight.shape
            grad_weight = outer_product(grad, table, x).view(3, 3, d, c).permute(2, 0, 1, 3)
        return grad_x, grad_weight, None, None


def backward_matrix(taps: Tensor) -> Tensor:
    """Taps ``[D, k, C]`` as ``[k * D, C]``, which takes gradients of results to what was read."""
    return taps.transpose(0, 1).flatten(0, 1)


def with_zeros(rows: Tensor) -> Tensor:
    """``[N + 1, C]``: a table's ``N`` stands for zeros."""
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


def product(rows: Tensor, table: Tensor, matrix: Tensor) -> Tensor:
    """The rows that a table names, side by side, times ``matrix`` ``[k * C, D]``: ``[M, D]``."""
    out = rows.new_empty(len(table), matrix.shape[1])
    gathered.product(with_zeros(rows), table, matrix, Arena(), out=out)
    return out


def outer_product(rows: Tensor, table: Tensor, others: Tensor) -> Tensor:
    """Sum over results of the rows they read times others ``[M, D]``: float ``[k * C, D]``."""
    rows, dtype = with_zeros(rows), torch.promote_types(rows.dtype, torch.float32)
    total = torch.zeros(table.shape[1] * rows.shape[1], others.shape[1], dtype=dtype)
    step = gathered.rows_per_block(len(total), rows.dtype)
    for part, other in zip(table.split(step), others.split(step), strict=True):
        total += rows.index_select(0, part.reshape(-1)).view(len(part), len(total)).T @ other
    return total
