"""Sums of convolutions on structure-preserving sparse grids as one GPU kernel.

The kernel gathers the rows of a tile's taps straight into its products, so no gathered rows are
written to memory, and all branches are one launch. It is used where Triton is installed and the
rows are on a GPU; :mod:`.sps_layers` computes the same without. Letters as there.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # of a tile


@triton.jit
def _kernel(bank, tables, weights, biases, out, n,  # type: ignore[no-untyped-def]
            branches: tl.constexpr, taps: tl.constexpr, c: tl.constexpr, d: tl.constexpr,
            rectify: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
            depth: tl.constexpr):
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    inner = tl.arange(0, depth)
    here = row < n
    total = tl.zeros((rows, columns), tl.float32)
    for branch in range(branches):
        value = tl.zeros((rows, columns), tl.float32)
        for tap in range(taps):
            source = tl.load(tables + (branch * n + row) * taps + tap, here, 0).to(tl.int64)
            for start in range(0, c, depth):
                a = tl.load(bank + source[:, None] * c + (start + inner)[None, :],
                            here[:, None], 0.0)
                b = tl.load(weights + ((branch * d + column[None, :]) * taps + tap) * c
                            + (start + inner)[:, None])
                # full float32 products, as on the CPU
                value = tl.dot(a, b, value, input_precision='ieee')
        value += tl.load(biases + branch * d + column)[None, :].to(tl.float32)
        if rectify:
            value = tl.maximum(value, 0.0)
        total += value
    tl.store(out + row[:, None] * d + column[None, :], total.to(out.dtype.element_ty),
             here[:, None])


def fits(bank: Tensor, out_channels: int) -> bool:
    """Whether the kernel takes rows of these channels: multiples of 16, not float64."""
    return bank.dtype != torch.float64 and bank.shape[1] % 16 == 0 and out_channels % 16 == 0


def fused_sum(bank: Tensor, tables: Sequence[Tensor], weights: Sequence[Tensor],
              biases: Sequence[Tensor], rectify: bool) -> Tensor:
    """As :func:`.sps_layers.sum_of_convolutions`, without gradients.

    Products are summed in float32. Arguments as there, all of the bank's dtype but the tables.
    """
    (n, taps), c, d = tables[0].shape, bank.shape[1], len(weights[0])
    out = bank.new_empty(n, d)
    columns = next(size for size in (64, 32, 16) if d % size == 0)
    depth = next(size for size in (64, 32, 16) if c % size == 0)
    if n:
        _kernel[triton.cdiv(n, ROWS), d // columns](
            bank.contiguous(), *(torch.stack(list(x)) for x in (tables, weights, biases)), out, n,
            branches=len(tables), taps=taps, c=c, d=d, rectify=rectify, rows=ROWS,
            columns=columns, depth=depth)
    return out
