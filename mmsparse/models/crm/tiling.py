"""Tiles that a large image is encoded in, chosen to keep to a bound of memory.

Three grids cover the same image: the encoder's input of ``H, W`` pixels, the feature map, whose
cells are ``stride`` pixels of that input apart, and the target of ``T, U`` pixels at full
resolution, each of which is answered from the cells around it. Letters: ``B`` images.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmsparse.sparse.bilinear import cells_around_pixels

from .sampling import Window

# How far a feature sees, in pixels of the encoder's input; tiles overlap by this much.
HALO = 160
# Tiles are made of blocks of this many pixels of the encoder's input.
BLOCK = 64
# Sides of tiles that are tried, in blocks.
SIDES = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
# Bytes at the highest point of a pass in float32: per pixel of the encoder's input, per pixel of it
# that features are computed for, per queried point; per target pixel, for the maps of a selector.
ENCODER_BYTES, FUSION_BYTES, QUERY_BYTES, SELECTOR_BYTES = 1150, 1000, 2700, 40


class Tile(NamedTuple):
    """One tile, as a window of each of the three grids.

    Attributes:
        window: the part of the encoder's input that is encoded, halo included.
        cells: the part of the feature map that is computed from it.
        pixels: the part of the target that is answered from these cells. Tiles share no pixel.
    """

    window: Window
    cells: Window
    pixels: Window


def active_blocks(mask: Tensor, blocks: list[Tensor], size: list[int]) -> Tensor:
    """Which blocks hold a selected pixel of any image, bool ``[*size]`` on the CPU.

    Args:
        mask: bool ``[B, T, U]``, the selected pixels of the target.
        blocks: number of the block that every row lies in, and every column, int64 ``[T]``,
            ``[U]``.
        size: number of blocks, in rows and in columns.
    """
    rows, columns = (b.to(mask.device) for b in blocks)
    count = torch.zeros(size[0], mask.shape[2], dtype=torch.int32, device=mask.device)
    count.index_add_(0, rows, mask.sum(0, dtype=torch.int32))  # [block rows, U]
    total = torch.zeros(*size, dtype=torch.int32, device=mask.device)
    return total.index_add_(1, columns, count).cpu() > 0


def cores(active: Tensor, side: int) -> Iterator[Window]:
    """Cut a map of blocks into squares and shrink each to the blocks that are active in it.

    Args:
        active: bool ``[rows, columns]``, of :func:`active_blocks`.
        side: of the squares, in blocks. The first begins at the first active row and column.

    Yields:
        Windows that are counted in blocks; together they hold each active block once.
    """
    rows, columns = (active.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    for top in range(rows[0], rows[-1] + 1, side) if rows else ():
        for left in range(columns[0], columns[-1] + 1, side):
            y, x = active[top:top + side, left:left + side].nonzero().unbind(1)
            if len(y):
                yield Window(int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1).moved(
                    top, left)


def make_tile(core: Window, size: tuple[int, int], cells: tuple[int, int], first: list[Tensor],
              stride: int) -> Tile:
    """Turn a window of blocks into a tile.

    Args:
        core: of :func:`cores`.
        size, cells, stride: of :func:`plan_tiles`.
        first: the first of the two feature cells around every row of the target, and around every
            column, ascending int64 ``[T]``, ``[U]``.
    """
    first_cells = Window(*(n * BLOCK // stride for n in core))
    # a pixel belongs to the tile that its first cell lies in
    (top, bottom), (left, right) = (
        torch.searchsorted(f, torch.tensor(ends)).tolist() for f, ends in zip(
            first, (first_cells[::2], first_cells[1::2]), strict=True))
    window = Window(*(n * BLOCK for n in core)).grown(HALO, size)
    # its second cell may be the first of the next tile
    read_cells = first_cells._replace(
        bottom=first_cells.bottom + 1, right=first_cells.right + 1).grown(0, cells)
    return Tile(window, read_cells, Window(top, left, bottom, right))


def plan_tiles(size: tuple[int, int], full: tuple[int, int], cells: tuple[int, int], stride: int,
               selected: Tensor | None, count: int, bound: float
               ) -> tuple[list[Tile] | None, float]:
    """Choose the tiles in which the image is encoded at one scale.

    Small tiles need little memory, but overlap more, so that more pixels are encoded in all. Of the
    tile sizes in ``SIDES``, and of one tile for the whole image, the result is the one that encodes
    the fewest pixels while every tile keeps to the bound. Where pixels are selected, tiles without
    any are left out and the others shrink to the blocks that hold some.

    Args:
        size: ``(H, W)`` of the encoder's input.
        full: ``(T, U)``, size of the target.
        cells: height and width of the feature map.
        stride: pixels of the encoder's input from one feature cell to the next.
        selected: bool ``[B, T, U]``, which pixels to answer; ``None`` for all.
        count: ``B``.
        bound: bytes that the pass over one tile may take.

    Returns:
        The tiles, or ``None`` if no size keeps to the bound, and the least bytes that any size
        needs.
    """
    first = [cells_around_pixels(range(t), t, n).cells[:, 0].contiguous()
             for t, n in zip(full, cells, strict=True)]
    blocks = [-(-n * stride // BLOCK) for n in cells]
    active = torch.ones(blocks, dtype=torch.bool)
    if selected is not None:
        active = active_blocks(selected, [f * stride // BLOCK for f in first], blocks)
    best, cheapest, least = None, math.inf, math.inf
    for side in (max(blocks), *(side for side in SIDES if side < max(blocks))):
        tiles = [make_tile(core, size, cells, first, stride) for core in cores(active, side)]
        cost = sum(math.prod(tile.window.size) for tile in tiles)
        need = count * max((
            ENCODER_BYTES * math.prod(tile.window.size)
            + FUSION_BYTES * stride**2 * math.prod(tile.cells.size) for tile in tiles), default=0)
        least = min(least, need)
        if need <= bound and cost < cheapest:
            best, cheapest = tiles, cost
    return best, least
