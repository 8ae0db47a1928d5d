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

from .sites import SPARE, RowMap, Sites
from .winograd import WRITE, Affine, affine_relu, tile_cost, winograd_product

BLOCK = 1 << 21  # floats of a block of gathered rows: 8 MB, about a last-level cache
# What moving one float costs, in multiply-accumulates of a matrix product: measured on 2 cores.
MOVE = 15


def gathered_product(rows: Tensor, table: Tensor, matrix: Tensor, sites: Sites, *, out: Tensor,
                     affine: Affine | None = None, plus: Tensor | None = None) -> Tensor:
    """Rows that ``table`` names, side by side, times ``matrix``; no gradients.

    Args:
        rows: ``[N, C]``.
        table: int32 ``[M, k]``, row numbers.
        matrix: ``[k * C, D]``.
        sites: whose memory to use.
        out: ``[M + 1, D]``, written to; the last row becomes zero.
        affine: scale and shift ``[D]``, applied before a ReLU; ``None`` for neither.
        plus: ``[M + 1, D]``, added to the product.

    Returns:
        ``out``.
    """
    (m, k), c = table.shape, rows.shape[1]
    out[m] = 0
    step = max(1, BLOCK // (k * c))
    block = sites.memory((min(step, m) * k, c), rows, 'gathered')
    for top in range(0, m, step):
        part = table[top:top + step]
        gathered = block[:part.numel()]
        torch.index_select(rows, 0, part.reshape(-1), out=gathered)
        gathered, result = gathered.view(len(part), k * c), out[top:top + len(part)]
        if plus is None:
            torch.mm(gathered, matrix, out=result)
        else:
            torch.addmm(plus[top:top + len(part)], gathered, matrix, out=result)
        if affine is not None:
            affine_relu(result, affine, out=result)
    return out


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


def subm_conv(x: RowMap, weight: Tensor, *, affine: Affine | None = None,
              plus: RowMap | None = None, scratch: str | None = None) -> RowMap:
    """3x3 convolution onto the same pixels, tile by tile in whichever way costs less.

    Args:
        weight: ``[D, 3, 3, C]``.
        affine: scale and shift ``[D]``, applied before a ReLU; ``None`` for neither.
        plus: added to the convolution.
        scratch: name of the memory that the result stands in, until that is written to again.
    """
    (d, _, _, c), sites = weight.shape, x.sites
    room = sites.memory((len(sites) + SPARE, d), x.rows, scratch)
    out = room[:len(sites) + 1]
    rest = None if plus is None else plus.rows
    matrix = tap_matrix(weight)
    least = worth_a_tile(sites.tile_histogram, c, d)
    if least > 16:
        return x.replace_rows(gathered_product(
            x.rows, sites.neighbors, matrix, sites, out=out, affine=affine, plus=rest))
    tiles = sites.tiles(least)
    winograd_product(x.rows, tiles, weight, sites, out=room, affine=affine)
    if len(tiles.loose):
        part = sites.memory((len(tiles.loose) + 1, d), x.rows, 'part')
        gathered_product(x.rows, tiles.loose_neighbors, matrix, sites, out=part,
                         affine=affine)
        out.index_copy_(0, tiles.loose, part[:-1])
    if rest is not None:
        out += rest
    out[-1] = 0  # the tiles wrote to spare rows what no pixel wants
    return x.replace_rows(out)


def down_conv(x: RowMap, weight: Tensor, padding: int, scratch: str | None = None) -> RowMap:
    """3x3 convolution of stride 2 onto every cell that reads an active pixel.

    Args:
        weight: ``[D, 3, 3, C]``.
        scratch: as in :func:`subm_conv`.
    """
    table, cells = x.sites.read_by(padding), x.sites.coarse(padding)
    out = cells.memory((len(cells) + 1, len(weight)), x.rows, scratch)
    return RowMap(gathered_product(x.rows, table, tap_matrix(weight), cells, out=out), cells)


def up_conv(x: RowMap, weight: Tensor, padding: int, fine: RowMap, join: bool = False,
            scratch: str | None = None) -> RowMap:
    """Inverse of :func:`down_conv`, onto the pixels that it read.

    Args:
        weight: ``[D, 3, 3, C]``.
        fine: over those pixels.
        join: give the channels of ``fine`` first, then the result's.
        scratch: as in :func:`subm_conv`.
    """
    sites, d = fine.sites, len(weight)
    taps_of = weight.flatten(1, 2)
    c = fine.rows.shape[1] if join else 0
    out = sites.memory((len(sites) + 1, c + d), x.rows, scratch)
    out[:, :c] = fine.rows[:, :c]
    out[-1] = 0
    for pixels, table, taps in sites.readers(padding):
        if len(pixels):
            part = sites.memory((len(pixels) + 1, d), x.rows, 'part')
            gathered_product(x.rows, table, tap_matrix(taps_of[:, taps]), sites, out=part)
            out[:, c:].index_copy_(0, pixels, part[:-1])
    return fine.replace_rows(out)
