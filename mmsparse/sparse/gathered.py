"""Sparse convolutions for CPU inference: gather the rows a result reads, then one matrix product.

spconv's CPU kernels multiply tap by tap and scatter the products; gathering the rows into a block
that stays in cache and multiplying once is faster. Where the active pixels fill tiles of 4 x 4, a
submanifold convolution goes through Winograd's transform instead (:mod:`.winograd`), which needs a
quarter of the multiplications. Letters: ``N`` pixels, ``M`` results, ``C, D`` channels in and out,
``T`` tiles.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .sites import RowMap, Sites
from .winograd import Affine, affine_relu_, winograd_conv, winograd_cost

BLOCK = 1 << 21  # floats of a block of gathered rows: 8 MB, about a last-level cache
# What moving one float costs, in multiply-accumulates of a matrix product: measured on 2 cores.
MOVE = 15


def gathered_product(rows: Tensor, table: Tensor, matrix: Tensor, *,
                     affine: Affine | None = None, plus: Tensor | None = None) -> Tensor:
    """Rows that ``table`` names, side by side, times ``matrix``; no gradients.

    Args:
        rows: ``[N, C]``.
        table: int32 ``[M, k]``, row numbers.
        matrix: ``[k * C, D]``.
        affine: scale and shift ``[D]``, applied before a ReLU; ``None`` for neither.
        plus: ``[M + 1, D]``, added to the product.

    Returns:
        ``[M + 1, D]``, the last row zero.
    """
    (m, k), c = table.shape, rows.shape[1]
    out = rows.new_empty(m + 1, matrix.shape[1])
    out[m] = 0
    step = max(1, BLOCK // (k * c))
    block = rows.new_empty(min(step, m) * k, c)
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
            affine_relu_(result, affine)
    return out


def gathered_cost(sites: Sites, c: int, d: int) -> int:
    """Estimate of a submanifold convolution by a gathered product, in multiply-accumulates."""
    return 9 * len(sites) * c * (d + MOVE)


def tap_matrix(weight: Tensor) -> Tensor:
    """Taps of a convolution ``[D, ..., C]`` as ``[k * C, D]``: a view, products take it as it is."""
    return weight.reshape(len(weight), -1).T


def subm_conv(x: RowMap, weight: Tensor, *, affine: Affine | None = None,
              plus: RowMap | None = None) -> RowMap:
    """3x3 convolution onto the same pixels, by whichever way costs less.

    Args:
        weight: ``[D, 3, 3, C]``.
        affine: scale and shift ``[D]``, applied before a ReLU; ``None`` for neither.
        plus: added to the convolution.
    """
    (d, _, _, c), sites = weight.shape, x.sites
    rest = None if plus is None else plus.rows
    if winograd_cost(sites.tile_count, c, d, MOVE) < gathered_cost(sites, c, d):
        return winograd_conv(x, weight, affine=affine, plus=rest)
    return x.replace_rows(gathered_product(
        x.rows, sites.neighbors, tap_matrix(weight), affine=affine, plus=rest))


def down_conv(x: RowMap, weight: Tensor, padding: int) -> RowMap:
    """3x3 convolution of stride 2 onto every cell that reads an active pixel.

    Args:
        weight: ``[D, 3, 3, C]``.
    """
    return RowMap(gathered_product(x.rows, x.sites.read_by(padding), tap_matrix(weight)),
                  x.sites.coarse(padding))


def up_conv(x: RowMap, weight: Tensor, padding: int, fine: Sites) -> RowMap:
    """Inverse of :func:`down_conv`, onto the pixels that it read.

    Args:
        weight: ``[D, 3, 3, C]``.
        fine: the pixels, whose ``coarse(padding)`` are those of ``x``, which gives its buffers
            back.
    """
    taps_of = weight.flatten(1, 2)
    out = x.rows.new_empty(len(fine) + 1, weight.shape[0])
    out[-1] = 0
    for pixels, table, taps in fine.readers(padding):
        if len(pixels):
            part = gathered_product(x.rows, table, tap_matrix(taps_of[:, taps]))
            out.index_copy_(0, pixels, part[:-1])
    x.sites.release()
    return RowMap(out, fine)
