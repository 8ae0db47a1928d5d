"""Rows of features on the CPU, and the tables that say which rows a convolution reads.

For inference on the CPU every sparse convolution of mmsparse is a gather of rows by such a table
and a matrix product; spconv is not involved. Letters: ``B`` images, ``H, W`` size, ``N`` active
pixels, ``M`` active cells of the next coarser level, ``T`` tiles of 4 x 4 pixels, ``C`` channels.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .complexity import coarser

TILE = 4
SPARE = 64  # rows for what no pixel wants
AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


@dataclass(frozen=True)
class Tiles:
    """Tiles of 4 x 4 pixels, and the active pixels outside of them.

    Attributes:
        reads: int32 ``[T, 36]``, the 6x6 pixels that a 3x3 convolution reads for every tile.
        writes: int64 ``[16, T]``, the pixels of every tile; ``N`` up to ``N + SPARE - 1`` for those
            that are not active, in turns: threads that write to one row wait for each other.
        loose: int64 ``[n]``, row numbers of the active pixels in no tile.
        loose_neighbors: int32 ``[n, 9]``, the 3x3 pixels around each of them.
    """

    reads: Tensor
    writes: Tensor
    loose: Tensor
    loose_neighbors: Tensor


class Sites:
    """The active pixels of one level, and tables over them, each built when first asked for.

    A table holds row numbers, int32; ``N`` stands for a pixel that is not active.

    Args:
        mask: bool ``[B, H, W]``. Rows are its active pixels in raster order.
        memory: by name, shared with the other levels.
    """

    def __init__(self, mask: Tensor, memory: dict[str, Tensor] | None = None) -> None:
        self.mask = mask
        self.image, self.y, self.x = mask.nonzero().unbind(1)
        self._coarse: dict[int, Sites] = {}
        self._tiles: dict[int, Tiles] = {}
        self._memory = {} if memory is None else memory

    def __len__(self) -> int:
        return len(self.y)

    def memory(self, shape: tuple[int, ...], like: Tensor, name: str | None = None) -> Tensor:
        """Memory to write to, ``[...]``; of one name the same at every call, on whichever level.

        A large allocation costs a page fault per 4 KB when it is first written to, as much as the
        arithmetic on it; the layers need the same sizes over and over.
        """
        if name is None:
            return like.new_empty(shape)
        size, held = math.prod(shape), self._memory.get(name)
        if held is None or len(held) < size or held.dtype != like.dtype:
            del held
            self._memory.pop(name, None)  # given back before more is asked for
            self._memory[name] = held = like.new_empty(size)
        return held[:size].view(shape)

    @cached_property
    def grid(self) -> Tensor:
        """Row number of every pixel, flat, with a border of one and room for whole tiles."""
        b, h, w = self.mask.shape
        grid = torch.full((b, *self.grid_size), len(self), dtype=torch.int32)
        grid[:, 1:h + 1, 1:w + 1][self.mask] = torch.arange(len(self), dtype=torch.int32)
        return grid.view(-1)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of :attr:`grid`."""
        return tuple(-(-n // TILE) * TILE + 2 for n in self.mask.shape[1:])

    def look_up(self, image: Tensor, y: Tensor, x: Tensor, offsets: list[tuple[int, int]]
                ) -> Tensor:
        """Row numbers of the pixels at ``(y, x) + offset``, ``[len(y), len(offsets)]``."""
        height, width = self.grid_size
        place = (image * height + y + 1) * width + x + 1
        steps = place.new_tensor([dy * width + dx for dy, dx in offsets])
        return self.grid[place[:, None] + steps]

    @cached_property
    def neighbors(self) -> Tensor:
        """The 3x3 neighbors of every active pixel, ``[N, 9]``, taps in raster order."""
        return self.look_up(self.image, self.y, self.x, AROUND)

    @cached_property
    def tile_counts(self) -> Tensor:
        """Active pixels of every tile, int64 ``[B, ceil(H / 4), ceil(W / 4)]``."""
        b, h, w = self.mask.shape
        padded = F.pad(self.mask, (0, -w % TILE, 0, -h % TILE))
        return padded.view(b, -(-h // TILE), TILE, -(-w // TILE), TILE).sum((2, 4))

    @cached_property
    def tile_histogram(self) -> list[int]:
        """Tiles by their number of active pixels, 0 to 16."""
        return self.tile_counts.flatten().bincount(minlength=TILE**2 + 1).tolist()

    def tiles(self, least: int) -> Tiles:
        """The tiles with at least so many active pixels."""
        if least not in self._tiles:
            full = self.tile_counts >= least
            image, y, x = full.nonzero().unbind(1)
            around = range(-1, TILE + 1)
            reads = self.look_up(image, y * TILE, x * TILE,
                                 [(dy, dx) for dy in around for dx in around])
            writes = reads.view(-1, 6, 6)[:, 1:5, 1:5].flatten(1).T.contiguous().long()
            writes += torch.arange(writes.numel()).view_as(writes) % SPARE * (writes == len(self))
            outside = ~full[self.image, self.y // TILE, self.x // TILE]
            loose = outside.nonzero().squeeze(1)
            self._tiles[least] = Tiles(reads, writes, loose, self.look_up(
                self.image[loose], self.y[loose], self.x[loose], AROUND))
        return self._tiles[least]

    def coarse(self, padding: int) -> Sites:
        """The level below, after a 3x3 convolution of stride 2."""
        if padding not in self._coarse:
            self._coarse[padding] = Sites(
                coarser(self.mask, padding), self._memory)
        return self._coarse[padding]

    def read_by(self, padding: int) -> Tensor:
        """The 3x3 pixels that each coarse cell reads, ``[M, 9]``, taps in raster order."""
        cells = self.coarse(padding)
        return self.look_up(cells.image, 2 * cells.y - padding, 2 * cells.x - padding,
                            [(dy, dx) for dy in range(3) for dx in range(3)])

    def readers(self, padding: int) -> list[tuple[Tensor, Tensor, list[int]]]:
        """The coarse cells that read each pixel, for pixels of like parity at a time.

        A pixel of row ``y`` is read through tap ``r`` by the cell ``(y + padding - r) / 2`` where
        that is whole: taps 0 and 2 of even ``y + padding``, tap 1 of odd; columns likewise.

        Returns:
            For each of the four parities: int64 ``[n]`` row numbers of the pixels, ``[n, k]`` row
            numbers of the cells, and the ``k`` taps ``3 r + c``.
        """
        cells = self.coarse(padding)
        groups = []
        even = [(self.y + padding) % 2 == 0, (self.x + padding) % 2 == 0]
        for rows in (True, False):
            for columns in (True, False):
                pixels = ((even[0] == rows) & (even[1] == columns)).nonzero().squeeze(1)
                taps = [(r, c) for r in ((0, 2) if rows else (1,))
                        for c in ((0, 2) if columns else (1,))]
                # (y + padding - r) // 2 relative to (y + padding) // 2: 0, 0, -1 for r = 0, 1, 2
                table = cells.look_up(
                    self.image[pixels], (self.y[pixels] + padding) // 2,
                    (self.x[pixels] + padding) // 2, [(-(r // 2), -(c // 2)) for r, c in taps])
                groups.append((pixels, table, [3 * r + c for r, c in taps]))
        return groups


@dataclass(frozen=True)
class RowMap:
    """Features of the active pixels on the CPU, without gradients.

    Attributes:
        rows: ``[N + 1, C]`` in raster order, then a row of zeros: what a table reads as row ``N``.
        sites: the pixels.
    """

    rows: Tensor
    sites: Sites

    @property
    def features(self) -> Tensor:
        """Features of the pixels, ``[N, C]``."""
        return self.rows[:-1]

    def replace_rows(self, rows: Tensor) -> RowMap:
        """The same pixels with other rows, ``[N + 1, C']``, the last of them zero."""
        return replace(self, rows=rows)
