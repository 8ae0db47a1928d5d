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
from .active_map import ActiveMap
from .arena import Arena
from .winograd import Affine, affine_relu

if TYPE_CHECKING:
    from typing_extensions import Self

NORM_BLOCK = 1 << 18  # values that stay in cache between the norm and the ReLU


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
        return self._follow(SubmConv(self, weight.to(self._dtype)))

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
        affine = scale_and_shift(norm, self._dtype)
        if isinstance(self._work, SubmConv) and self._work.is_plain:
            return self._follow(replace(self._work, affine=affine))
        rows, room = self.padded, self._room(self.padded.shape[1])
        step = max(1, NORM_BLOCK // rows.shape[1])
        for part, result in zip(rows.split(step), room[:len(rows)].split(step), strict=True):
            affine_relu(part, affine, out=result)
        room[len(self.topology)] = 0
        return self._follow(room)


@dataclass(frozen=True)
class SubmConv:
    """A submanifold convolution to be done, and what is done to its result.

    Attributes:
        source: what it reads.
        weight: ``[D, 3, 3, C]``.
        affine: scale and shift ``[D]``, applied before a ReLU; or
        plus: added to the result.
    """

    source: RowMap
    weight: Tensor
    affine: Affine | None = None
    plus: RowMap | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a norm or a sum may still join."""
        return self.affine is None and self.plus is None

    def write(self, out: Tensor, arena: Arena) -> None:
        """Compute into ``[N + SPARE, D]``."""
        gathered.subm_conv(
            self.source.padded, self.source.topology, self.weight, arena, out=out,
            affine=self.affine, plus=None if self.plus is None else self.plus.padded)


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


def scale_and_shift(norm: nn.BatchNorm1d, dtype: torch.dtype) -> Affine:
    """The two ``[C]`` that stand for a trained norm."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None, 'a norm without running statistics'
    scale = norm.weight / (variance + norm.eps).sqrt()
    return scale.to(dtype), (norm.bias - mean * scale).to(dtype)
