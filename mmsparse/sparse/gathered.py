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
from .winograd import TRANSPOSED, winograd_conv, winograd_cost

BLOCK = 1 << 21  # floats of a block of gathered rows: 8 MB, about a last-level cache
# What moving one float costs, in multiply-accumulates of a matrix product: measured on 2 cores.
MOVE = 15


def gathered_product(rows: Tensor, table: Tensor, matrix: Tensor, *, shift: Tensor | None = None,
                     plus: Tensor | None = None) -> Tensor:
    """Rows that ``table`` names, side by side, times ``matrix``; no gradients.

    Args:
        rows: ``[N, C]``.
        table: int32 ``[M, k]``, row numbers.
        matrix: ``[k * C, D]``.
        shift: ``[D]``, added before a ReLU; ``None`` for neither.
        plus: ``[M + 1, D]``, added to the result.

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
        if shift is not None:  # while the rows are in cache
            result.add_(shift).relu_()
    return out


def gathered_cost(sites: Sites, c: int, d: int) -> int:
    """Estimate of a submanifold convolution by a gathered product, in multiply-accumulates."""
    return 9 * len(sites) * c * (d + MOVE)


def tap_matrix(weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """Taps of a convolution as a matrix for :func:`gathered_product`.

    Args:
        weight: ``[D, ..., C]``.
        scale: ``[D]``, a factor; ``None`` for none.

    Returns:
        ``[k * C, D]``, taps in their order.
    """
    rows = weight.reshape(len(weight), -1)
    if scale is not None:
        rows = rows * scale[:, None]
    # A product with the transposed view is a little slower, a copy of a large weight much slower.
    return rows.T.contiguous() if rows.numel() <= 9 * TRANSPOSED else rows.T


def subm_conv(x: RowMap, weight: Tensor, *, scale: Tensor | None = None,
              shift: Tensor | None = None, plus: RowMap | None = None) -> RowMap:
    """3x3 convolution onto the same pixels, by whichever way costs less.

    Args:
        weight: ``[D, 3, 3, C]``.
        scale: ``[D]``, a factor; ``None`` for none.
        shift: ``[D]``, added before a ReLU; ``None`` for neither.
        plus: added to the result.
    """
    (d, _, _, c), sites = weight.shape, x.sites
    rest = None if plus is None else plus.rows
    if winograd_cost(sites.tile_count, c, d, MOVE) < gathered_cost(sites, c, d):
        return winograd_conv(x, weight, scale=scale, shift=shift, plus=rest)
    matrix = tap_matrix(weight, scale)
    return x.replace_rows(gathered_product(
        x.rows, sites.neighbors, matrix, shift=shift, plus=rest))


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
