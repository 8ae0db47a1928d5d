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


class Sites:
    """The active pixels of one level, and tables over them, each built when first asked for.

    A table holds row numbers, int32; ``N`` stands for a pixel that is not active.

    Args:
        mask: bool ``[B, H, W]``. Rows are its active pixels in raster order.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.image, self.y, self.x = mask.nonzero().unbind(1)
        self._coarse: dict[int, Sites] = {}
        self._buffers: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.y)

    def buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory to write to, the same at every call of this name.

        A large allocation costs a page fault per 4 KB when it is first written to, as much as the
        arithmetic on it; the convolutions of a level need the same sizes over and over.
        """
        size = math.prod(shape)
        held = self._buffers.get(name)
        if held is None or len(held) < size or held.dtype != like.dtype:
            self._buffers[name] = held = like.new_empty(size)
        return held[:size].view(shape)

    def release(self) -> None:
        """Give the buffers back: the level is done."""
        self._buffers.clear()

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
        return self.look_up(self.image, self.y, self.x,
                            [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])

    @cached_property
    def tile_mask(self) -> Tensor:
        """Tiles that hold an active pixel, bool ``[B, ceil(H / 4), ceil(W / 4)]``."""
        return F.max_pool2d(self.mask[:, None].float(), TILE, ceil_mode=True)[:, 0] > 0

    @cached_property
    def tile_count(self) -> int:
        """``T``."""
        return int(self.tile_mask.sum())

    @cached_property
    def tiles(self) -> Tensor:
        """The 6x6 pixels that a 3x3 convolution reads for every tile, ``[T, 36]``."""
        image, y, x = self.tile_mask.nonzero().unbind(1)
        around = range(-1, TILE + 1)
        return self.look_up(image, y * TILE, x * TILE,
                            [(dy, dx) for dy in around for dx in around])

    @cached_property
    def tile_rows(self) -> Tensor:
        """The 4x4 pixels of every tile, int64 ``[16, T]``."""
        return self.tiles.view(-1, 6, 6)[:, 1:5, 1:5].flatten(1).T.contiguous().long()

    def coarse(self, padding: int) -> Sites:
        """The level below, after a 3x3 convolution of stride 2."""
        if padding not in self._coarse:
            self._coarse[padding] = Sites(coarser(self.mask, padding))
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
