"""Sparse convolutions for CPU inference: gather the rows a result reads, then one matrix product.

spconv's CPU kernels multiply tap by tap and scatter the products; gathering the rows into a block
that stays in cache and multiplying once is faster. In tiles of 4 x 4 that hold enough active pixels
a submanifold convolution goes through Winograd's transform instead (:mod:`.winograd`), which needs
a quarter of the multiplications. Letters: ``N`` pixels, ``M`` results, ``C, D`` channels in and
out, ``T`` tiles.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..topology import Topology
from .arena import Arena
from .winograd import WRITE, tile_cost, winograd_product

# Bytes and rows of a block of gathered rows, at least. More would leave the cache; with less,
# products in bfloat16 spend their time on packing the weights, which they do for every block.
BLOCK, ROWS = 1 << 24, 1 << 12
# What moving one float costs, in multiply-accumulates of a matrix product: measured on 2 cores.
MOVE = 15


def rows_per_block(width: int, dtype: torch.dtype) -> int:
    """How many rows of ``width`` values a block holds."""
    return max(ROWS, BLOCK // (width * dtype.itemsize))


def product(rows: Tensor, table: Tensor, matrix: Tensor, arena: Arena, *, out: Tensor,
            bias: Tensor | None = None, plus: Tensor | None = None) -> None:
    """Rows that ``table`` names, side by side, times ``matrix``; no gradients.

    Args:
        rows: ``[N, C]``.
        table: int32 ``[M, k]``, row numbers.
        matrix: ``[k * C, D]``.
        arena: gives the memory for blocks.
        out: ``[M, D]`` or more rows, written to; row ``M``, if there, becomes zero.
        bias: ``[D]``, added before a ReLU; ``None`` for neither.
        plus: ``[M, D]`` or more rows, added to the product; not together with ``bias``.
    """
    (m, k), c = table.shape, rows.shape[1]
    out[m:m + 1] = 0
    step = rows_per_block(k * c, rows.dtype)
    block = arena.take((min(step, m) * k, c), rows.dtype)
    for top in range(0, m, step):
        part = table[top:top + step]
        gathered = block[:part.numel()]
        torch.index_select(rows, 0, part.reshape(-1), out=gathered)
        gathered, result = gathered.view(len(part), k * c), out[top:top + len(part)]
        if bias is not None:
            torch.addmm(bias, gathered, matrix, out=result).relu_()
        elif plus is not None:
            torch.addmm(plus[top:top + len(part)], gathered, matrix, out=result)
        else:
            torch.mm(gathered, matrix, out=result)


def tap_matrix(weight: Tensor) -> Tensor:
    """Taps of a convolution ``[D, ..., C]`` as ``[k * C, D]``: a view, which products take."""
    return weight.reshape(len(weight), -1).T


def worth_a_tile(histogram: list[int], c: int, d: int) -> int:
    """Active pixels from which on a tile costs less by Winograd's transform than pixel by pixel.

    Estimated in multiply-accumulates.

    Args:
        histogram: tiles by their number of active pixels, 0 to 16.
        c, d: channels in and out.

    Returns:
        1 to 16; 17 where no tile is worth it, or too few to pay for transforming the weight.
    """
    pixel, tile = 9 * c * (d + MOVE), tile_cost(c, d, MOVE)
    least = math.ceil(tile / pixel)
    saved = sum(histogram[n] * (n * pixel - tile) for n in range(least, 17))
    return least if saved > WRITE * 36 * c * d else 17


def subm_conv(rows: Tensor, topology: Topology, weight: Tensor, arena: Arena, *, out: Tensor,
              bias: Tensor | None = None, plus: Tensor | None = None) -> None:
    """3x3 convolution onto the same pixels, tile by tile in whichever way costs less.

    Args:
        rows: ``[N + 1, C]``, the last one zero.
        weight: ``[D, 3, 3, C]``.
        arena: gives the memory for blocks.
        out: ``[N + SPARE, D]``, written to; row ``N`` becomes zero.
        bias: ``[D]``, added before a ReLU; ``None`` for neither.
        plus: ``[N + 1, D]``, added to the convolution; not together with ``bias``.
    """
    (d, _, _, c), n = weight.shape, len(topology)
    matrix = tap_matrix(weight)
    # Winograd's transforms lose digits that bfloat16 does not have.
    least = (17 if rows.dtype == torch.bfloat16 else
             worth_a_tile(topology.tile_histogram, c, d))
    if least > 16:
        product(rows, topology.neighbors, matrix, arena, out=out, bias=bias, plus=plus)
        return
    tiles = topology.tiles(least)
    winograd_product(rows, tiles, weight, arena, out=out, bias=bias)
    if len(tiles.loose):
        part = arena.take((len(tiles.loose) + 1, d), rows.dtype)
        product(rows, tiles.loose_neighbors, matrix, arena, out=part, bias=bias)
        out.index_copy_(0, tiles.loose, part[:-1])
    if plus is not None:
        out[:n] += plus[:n]
    out[n] = 0  # the tiles wrote to spare rows what no pixel wants


def up_conv(rows: Tensor, fine: Topology, weight: Tensor, padding: int, arena: Arena, *,
            out: Tensor) -> None:
    """Inverse of a convolution of stride 2, onto the pixels that it read.

    Args:
        rows: of the coarse cells, ``[M + 1, C]``, the last one zero.
        fine: the pixels.
        weight: ``[D, 3, 3, C]``.
        padding: of the convolution that it inverts.
        arena: gives the memory for blocks.
        out: ``[N + 1, D]`` or more rows, columns of wider ones maybe; row ``N`` becomes zero.
    """
    taps_of = weight.flatten(1, 2)
    for readers in fine.readers(padding):
        if len(readers.pixels):
            part = arena.take((len(readers.pixels) + 1, len(weight)), rows.dtype)
            product(rows, readers.cells, tap_matrix(taps_of[:, readers.taps]), arena, out=part)
            out.index_copy_(0, readers.pixels, part[:-1])
    out[len(fine)] = 0
