"""Rows of features by operators that ONNX has: gathers, matrix products and sums.

What is traced must not depend on how many pixels are active, not even on whether any is: one spare
row, of zeros, follows those of the active pixels on every level. It is what tables name where
nothing is active, and no tensor is ever empty. Letters: ``N`` active pixels, ``M`` active cells of
the next coarser level, ``k`` taps, ``C, D`` channels in and out.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ..maps import SparseMap
from ..topology import AROUND, Topology
from .active_map import ActiveMap, scale_and_shift
from .gathered import tap_matrix

if TYPE_CHECKING:
    from typing_extensions import Self

# Row and column of the spare pixel. It lies so far outside that neither the pixels around it, nor
# those that it reads as a coarse cell, nor the cells that read it are in the image.
SPARE = -2
BORDER = 5  # pixels above and to the left of the image, enough for all that the spare pixel reads
# The cell that half a coordinate names, and those before it.
BEFORE = [(0, 0), (0, -1), (-1, 0), (-1, -1)]


class TracedLevel:
    """The active pixels of one level, the spare one as the last, and tables over them.

    A table holds row numbers, int64; ``N`` is the spare row.

    Args:
        topology: of one image.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._coarse: dict[int, TracedLevel] = {}

    @cached_property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Row and column of every pixel, int64 ``[N + 1]``."""
        _, y, x = self.topology.coordinates
        return F.pad(y, (0, 1), value=SPARE), F.pad(x, (0, 1), value=SPARE)

    @cached_property
    def active(self) -> Tensor:
        """1 for a pixel, 0 for the spare one: float32 ``[N + 1, 1]``."""
        return (self.coordinates[0] != SPARE)[:, None].float()

    @cached_property
    def grid(self) -> Tensor:
        """Row number of every pixel of the image with its border, flat."""
        active = F.pad(self.topology.mask[0].long(), (BORDER, 1, BORDER, 1)).flatten()
        count = active.cumsum(0)
        return torch.where(active > 0, count - 1, count[-1:])

    def look_up(self, y: Tensor, x: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
        """Row numbers of the pixels at ``(y, x) + offset``, ``[len(y), len(offsets)]``."""
        width = self.topology.spatial_shape[1] + BORDER + 1
        place = (y + BORDER) * width + x + BORDER
        steps = place.new_tensor([dy * width + dx for dy, dx in offsets])
        return gather(self.grid, place[:, None] + steps)

    @cached_property
    def neighbors(self) -> Tensor:
        """The 3x3 neighbors of every pixel, ``[N + 1, 9]``, taps in raster order."""
        return self.look_up(*self.coordinates, AROUND)

    def coarse(self, padding: int) -> TracedLevel:
        """As :meth:`.Topology.coarse`."""
        if padding not in self._coarse:
            self._coarse[padding] = TracedLevel(self.topology.coarse(padding))
        return self._coarse[padding]

    def read_by(self, padding: int) -> Tensor:
        """The 3x3 pixels that each coarse cell reads, ``[M + 1, 9]``, taps in raster order."""
        y, x = (2 * axis - padding for axis in self.coarse(padding).coordinates)
        return self.look_up(y, x, [(dy, dx) for dy in range(3) for dx in range(3)])

    def readers(self, padding: int) -> Tensor:
        """Through which taps of which coarse cells each pixel is read, ``[N + 1, 4]``.

        As :meth:`.Topology.readers`, of all parities at once: an even row is read through tap 0 by
        a cell and through tap 2 by the cell before, an odd row through tap 1 by one cell; columns
        likewise.

        Returns:
            ``9 cell + tap``; where fewer than four read a pixel, some tap of the spare cell.
        """
        cells = self.coarse(padding)
        y, x = (axis + padding for axis in self.coordinates)
        odd_y, odd_x = (y % 2)[:, None], (x % 2)[:, None]
        table = cells.look_up(y // 2, x // 2, BEFORE)
        before_y, before_x = y.new_tensor(BEFORE).neg().unbind(1)  # [4], 1 for the cell before
        taps = (3 * (odd_y + 2 * before_y * (1 - odd_y)) + odd_x + 2 * before_x * (1 - odd_x))
        missing = odd_y * before_y + odd_x * before_x > 0
        return torch.where(missing, cells.grid[:1], table) * 9 + taps  # no pixel at the border


@dataclass(frozen=True)
class TracedRowMap(ActiveMap):
    """Features of the active pixels of one image, for inference in a graph that is exported.

    Attributes:
        features: ``[N + 1, C]`` in raster order; the last row is zero.
        level: the pixels.
    """

    features: Tensor
    level: TracedLevel

    @classmethod
    def of(cls, pixels: SparseMap) -> TracedRowMap:
        """The same features.

        Raises:
            ValueError: they are of several images.
        """
        if pixels.topology.batch_size != 1:
            raise ValueError(f'one image can be traced, got {pixels.topology.batch_size}')
        return cls(F.pad(pixels.features, (0, 0, 0, 1)), TracedLevel(pixels.topology))

    def _follow(self, features: Tensor) -> Self:
        return replace(self, features=features)

    @override
    def rows(self) -> Tensor:
        return self.features[:-1]

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        return self._follow(F.pad(rows, (0, 0, 0, 1)))

    @override
    def linear(self, weight: Tensor) -> Self:
        return self._follow(self.features @ weight.T)

    @override
    def add(self, other: Self) -> Self:
        return self._follow(self.features + other.features)

    @override
    def concat(self, other: Self) -> Self:
        return self._follow(torch.cat([self.features, other.features], 1))

    @override
    def norm_relu(self, norm: nn.BatchNorm1d) -> Self:
        scale, shift = scale_and_shift(norm)
        return self._follow((self.features * scale + shift).relu() * self.level.active)

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        return self._follow(product(self.features, self.level.neighbors, weight))

    @override
    def down_conv(self, weight: Tensor, padding: int) -> TracedRowMap:
        return TracedRowMap(product(self.features, self.level.read_by(padding), weight),
                            self.level.coarse(padding))

    @override
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        # What every cell gives through each of its taps, [9 (M + 1), D]; pixels add up theirs.
        given = (coarse.features @ weight.permute(3, 1, 2, 0).flatten(1)).view(-1, len(weight))
        return self._follow(gather(given, self.level.readers(padding)).sum(1))


def gather(rows: Tensor, table: Tensor) -> Tensor:
    """The rows ``[N, ...]`` that a table ``[M, k]`` names, ``[M, k, ...]``."""
    return rows.index_select(0, table.flatten()).view(-1, table.shape[1], *rows.shape[1:])


def product(rows: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """The rows ``[N, C]`` that a table names, times the taps ``[D, 3, 3, C]``: ``[M, D]``."""
    return gather(rows, table).flatten(1) @ tap_matrix(weight)
