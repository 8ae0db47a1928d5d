"""Tiles that a large image is encoded in. Letters: ``B`` images, ``T, U`` size of the target."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .head import neighbors
from .sampling import Window

# How far a feature sees, in pixels of the encoder's input; tiles overlap by this much.
HALO = 160
# Tiles are made of blocks of this many pixels of the encoder's input.
BLOCK = 64
# Sides of tiles that are tried, in blocks.
SIDES = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
# Bytes at the highest point of a pass in float32: per pixel of the encoder's input, per pixel whose
# features are computed, per point asked for; per pixel of the maps of a selector.
ENCODER_BYTES, FUSION_BYTES, QUERY_BYTES, SELECTOR_BYTES = 1150, 1000, 2700, 40


class Tile(NamedTuple):
    """A part of the work at one scale.

    Attributes:
        window: of the encoder's input that is encoded.
        cells: of the feature map that are computed.
        pixels: of the target whose answers these cells give.
    """

    window: Window
    cells: Window
    pixels: Window


def blocks_of(mask: Tensor, blocks: list[Tensor], size: list[int]) -> Tensor:
    """Which blocks hold an active pixel, bool ``[*size]`` on the CPU.

    Args:
        mask: bool ``[B, T, U]``.
        blocks: the block of every row and of every column, int64 ``[T]``, ``[U]``.
    """
    rows, columns = (b.to(mask.device) for b in blocks)
    count = torch.zeros(size[0], mask.shape[2], dtype=torch.int32, device=mask.device)
    count.index_add_(0, rows, mask.sum(0, dtype=torch.int32))
    found = torch.zeros(*size, dtype=torch.int32, device=mask.device)
    return found.index_add_(1, columns, count).cpu() > 0


def cores(active: Tensor, side: int) -> Iterator[Window]:
    """Cut a map of blocks into squares and shrink each to what is active in it.

    Args:
        active: bool ``[rows, columns]`` on the CPU.
        side: in blocks, counted from the first active row and column.
    """
    rows, columns = (active.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    for top in range(rows[0], rows[-1] + 1, side) if rows else ():
        for left in range(columns[0], columns[-1] + 1, side):
            y, x = active[top:top + side, left:left + side].nonzero().unbind(1)
            if len(y):
                yield Window(top + int(y.min()), top + int(y.max()) + 1,
                             left + int(x.min()), left + int(x.max()) + 1)


def make_tile(core: Window, size: tuple[int, int], cells: tuple[int, int], first: list[Tensor],
              stride: int) -> Tile:
    """The tile of a window that is counted in blocks; the other arguments: :func:`plan_tiles`.

    Args:
        first: the first feature cell of every row and of every column of the target.
    """
    part = Window(*(n * BLOCK // stride for n in core))
    rows, columns = (torch.searchsorted(f, torch.tensor([start, stop])).tolist()
                     for f, start, stop in ((first[0], *part[:2]), (first[1], *part[2:])))
    window = Window(*(n * BLOCK for n in core)).grown(HALO, size)
    # a pixel's second cell may be the first of the next tile
    asked = part._replace(bottom=part.bottom + 1, right=part.right + 1).grown(0, cells)
    return Tile(window, asked, Window(*rows, *columns))


def plan_tiles(size: tuple[int, int], full: tuple[int, int], cells: tuple[int, int], stride: int,
               selected: Tensor | None, count: int, bound: float
               ) -> tuple[list[Tile] | None, float]:
    """Cut the work at one scale so that the least is encoded that keeps to the memory.

    Tiles without a selected pixel are left out, the others shrink to the blocks that hold some.

    Args:
        size: of the encoder's input.
        full: ``(T, U)``.
        cells: size of the feature map.
        stride: of a feature cell in pixels of the encoder's input.
        selected: bool ``[B, T, U]``; ``None`` is every pixel.
        count: ``B``.
        bound: bytes that a tile may take.

    Returns:
        The tiles, ``None`` if the bound is too low for any, and the bytes that the least needs.
    """
    first = [neighbors(t, n, torch.device('cpu')).cells[:, 0].contiguous()
             for t, n in zip(full, cells, strict=True)]
    blocks = [-(-n * stride // BLOCK) for n in cells]
    active = torch.ones(blocks, dtype=torch.bool)
    if selected is not None:
        active = blocks_of(selected, [f * stride // BLOCK for f in first], blocks)
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
