"""Rows of features for inference on the CPU.

Every sparse convolution is a gather of rows by a table of the topology and a matrix product
(:mod:`.gathered`, :mod:`.winograd`); spconv is not involved. A convolution waits until somebody
reads it, so that a norm or a sum that comes first is computed within, block by block in cache.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..maps import SparseMap
from ..topology import SPARE, Topology
from . import gathered
from .active_map import ActiveMap, scale_and_shift
from .arena import Arena

if TYPE_CHECKING:
    from typing_extensions import Self

NORM_BLOCK = 1 << 18  # values that stay in cache between the norm and the ReLU
WIDE = 512  # values that a vectorized loop runs over at least


class RowMap(ActiveMap):
    """Features of the active pixels on the CPU, without gradients.

    Args:
        topology: the pixels.
        arena: where the rows and those of the maps that follow stand.
        work: the rows ``[N + SPARE, C]`` in raster order, row ``N`` zero (what a table reads as row
            ``N``), the rest arbitrary; or the convolution that will write them.
        dtype: of the rows.
    """

    def __init__(self, topology: Topology, arena: Arena, work: Tensor | SubmConv | UpConv,
                 dtype: torch.dtype) -> None:
        self.topology = topology
        self._arena = arena
        self._work = work
        self._dtype = dtype

    @classmethod
    def of(cls, pixels: SparseMap, dtype: torch.dtype) -> Self:
        """The same features in another precision."""
        arena, n = Arena(), len(pixels)
        room = arena.take((n + SPARE, pixels.features.shape[1]), dtype)
        room[:n] = pixels.features
        room[n] = 0
        return cls(pixels.topology, arena, room, dtype)

    def _follow(self, work: Tensor | SubmConv | UpConv, topology: Topology | None = None) -> Self:
        return type(self)(topology or self.topology, self._arena, work, self._dtype)

    def _room(self, channels: int) -> Tensor:
        return self._arena.take((len(self.topology) + SPARE, channels), self._dtype)

    @property
    def padded(self) -> Tensor:
        """``[N + 1, C]``, the last row zero; computed now if it is not yet."""
        if not isinstance(self._work, Tensor):
            room = self._room(len(self._work.weight))
            self._work.write(room, self._arena)
            self._work = room
        return self._work[:len(self.topology) + 1]

    @override
    def rows(self) -> Tensor:
        return self.padded[:-1]

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        return self.of(SparseMap(rows, self.topology), self._dtype)

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        return self._follow(SubmConv(self, weight))

    @override
    def down_conv(self, weight: Tensor, padding: int) -> RowMap | None:
        coarse = self.topology.coarse(padding)
        if not len(coarse):
            return None
        weight = weight.to(self._dtype)
        room = self._arena.take((len(coarse) + SPARE, len(weight)), self._dtype)
        gathered.product(self.padded, self.topology.read_by(padding), gathered.tap_matrix(weight),
                         self._arena, out=room)
        return self._follow(room, coarse)

    @override
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        return self._follow(UpConv(coarse, self.topology, weight.to(self._dtype), padding))

    @override
    def linear(self, weight: Tensor) -> Self:
        room = self._room(len(weight))
        torch.mm(self.padded, weight.to(self._dtype).T, out=room[:len(self.padded)])
        return self._follow(room)

    @override
    def add(self, other: Self) -> Self:
        if isinstance(self._work, SubmConv) and self._work.is_plain:
            return self._follow(replace(self._work, plus=other))
        room = self._room(self.padded.shape[1])
        torch.add(self.padded, other.padded, out=room[:len(self.padded)])
        return self._follow(room)

    @override
    def concat(self, other: Self) -> Self:
        own, work = self.padded, other._work
        c, n = own.shape[1], len(own)
        if isinstance(work, UpConv):
            room = self._room(c + len(work.weight))
            work.write(room[:, c:], self._arena)
        else:
            room = self._room(c + other.padded.shape[1])
            room[:n, c:] = other.padded
        room[:n, :c] = own
        return self._follow(room)

    @override
    def norm_relu(self, norm: nn.BatchNorm1d) -> Self:
        scale, shift = scale_and_shift(norm)
        if isinstance(self._work, SubmConv) and self._work.is_plain:
            weight = self._work.weight * scale[:, None, None, None]
            return self._follow(replace(self._work, weight=weight, bias=shift))
        rows, room = self.padded, self._room(len(scale))
        affine_relu(rows, scale.to(self._dtype), shift.to(self._dtype), out=room[:len(rows)])
        room[len(self.topology)] = 0
        return self._follow(room)

    @override
    def bias_relu(self, bias: Tensor) -> Self:
        if isinstance(self._work, SubmConv) and self._work.is_plain:
            return self._follow(replace(self._work, bias=bias))
        return super().bias_relu(bias)


@dataclass(frozen=True)
class SubmConv:
    """A submanifold convolution to be done, and what is done to its result.

    Attributes:
        source: what it reads.
        weight: ``[D, 3, 3, C]``.
        bias: ``[D]``, added before a ReLU; or
        plus: added to the result.
    """

    source: RowMap
    weight: Tensor
    bias: Tensor | None = None
    plus: RowMap | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a norm or a sum may still join."""
        return self.bias is None and self.plus is None

    def write(self, out: Tensor, arena: Arena) -> None:
        """Compute into ``[N + SPARE, D]``."""
        gathered.subm_conv(
            self.source.padded, self.source.topology, self.weight.to(out.dtype), arena, out=out,
            bias=None if self.bias is None else self.bias.to(out.dtype),
            plus=None if self.plus is None else self.plus.padded)


@dataclass(frozen=True)
class UpConv:
    """An inverse convolution to be done.

    Attributes:
        coarse: what it reads.
        fine: the pixels that it writes.
        weight: ``[D, 3, 3, C]``.
        padding: of the convolution that it inverts.
    """

    coarse: RowMap
    fine: Topology
    weight: Tensor
    padding: int

    def write(self, out: Tensor, arena: Arena) -> None:
        """Compute into ``[N + SPARE, D]``, which may be some columns of wider rows."""
        gathered.up_conv(self.coarse.padded, self.fine, self.weight, self.padding, arena, out=out)


def affine_relu(rows: Tensor, scale: Tensor, shift: Tensor, *, out: Tensor) -> None:
    """``out = relu(scale * rows + shift)``, contiguous ``[n, C]``, block by block in cache."""
    # Several rows as one: with fewer channels than a vector holds (32 in bfloat16) torch does not
    # vectorize, and takes six times as long on 16.
    fold = max(1, WIDE // rows.shape[1])
    whole, step = len(rows) - len(rows) % fold, max(1, NORM_BLOCK // (fold * rows.shape[1]))
    many = (x[:whole].view(-1, fold * x.shape[1]).split(step) for x in (rows, out))
    wide_scale, wide_shift = scale.repeat(fold), shift.repeat(fold)
    for part, result in zip(*many, strict=True):
        torch.addcmul(wide_shift, part, wide_scale, out=result).relu_()
    torch.addcmul(shift, rows[whole:], scale, out=out[whole:]).relu_()
