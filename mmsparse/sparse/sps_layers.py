"""Convolutions on the active cells of structure-preserving sparse grids.

A result gathers the rows its taps read and multiplies them once. The gathered rows would be larger
than the dense map they replace, so they are made block by block, and made again in the backward
pass instead of being kept. Source and letters as in :mod:`.sps`; ``b`` branches.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .sps import SPSMap, neighbors, rows_at, square

try:
    from . import sps_triton as KERNEL
except ImportError:  # it comes with torch's builds for GPUs
    KERNEL = None  # type: ignore[assignment]

# Floats of a block of gathered rows: 8 MB on a CPU, about a last-level cache; 64 MB on a GPU.
BLOCK = dict(cpu=1 << 21, cuda=1 << 24)


def blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``rows`` whose gathered rows of ``width`` floats fill a block, one at least."""
    step = max(1, BLOCK.get(device.type, BLOCK['cuda']) // width)
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))


class _SumOfConvolutions(torch.autograd.Function):
    """See :func:`sum_of_convolutions`; ``params``: weight ``[D, k * C]``, bias ``[D]`` of each."""

    @staticmethod
    def forward(ctx: Any, bank: Tensor, tables: Sequence[Tensor], rectify: bool,
                *params: Tensor) -> Tensor:
        ctx.save_for_backward(bank, *tables, *params)
        ctx.branches, ctx.rectify = len(tables), rectify
        return _sum(bank, tables, rectify, params)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        bank, *rest = ctx.saved_tensors
        tables, params = rest[:ctx.branches], rest[ctx.branches:]
        exact = torch.promote_types(bank.dtype, torch.float32)  # sums of many in half precision
        to_bank = torch.zeros_like(bank, dtype=exact)
        to_params = [torch.zeros_like(p, dtype=exact) for p in params]
        for part in blocks(len(grad), params[0].shape[1], bank.device):
            for i, table in enumerate(tables):
                weight, bias = params[2 * i:2 * i + 2]
                gathered, wanted = _gather(bank, table[part]), grad[part]
                if ctx.rectify:
                    wanted = wanted * (torch.addmm(bias, gathered, weight.T) > 0)
                to_params[2 * i] += wanted.T @ gathered
                to_params[2 * i + 1] += wanted.sum(0, dtype=exact)
                to_bank.index_add_(
                    0, table[part].flatten(), (wanted @ weight).view(-1, bank.shape[1]).to(exact))
        return (to_bank.to(bank.dtype), None, None,
                *(g.to(p.dtype) for g, p in zip(to_params, params, strict=True)))


def _gather(bank: Tensor, table: Tensor) -> Tensor:
    """Rows side by side, ``[n, k * C]``."""
    return bank.index_select(0, table.flatten()).view(len(table), table.shape[1] * bank.shape[1])


def _sum(bank: Tensor, tables: Sequence[Tensor], rectify: bool, params: Sequence[Tensor]
         ) -> Tensor:
    """The forward pass."""
    if bank.is_cuda and KERNEL is not None and KERNEL.fits(bank, len(params[0])):
        return KERNEL.fused_sum(bank, tables, params[::2], params[1::2], rectify)
    result = bank.new_zeros(len(tables[0]), len(params[0]))
    for part in blocks(len(result), params[0].shape[1], bank.device):
        out = result[part]
        for table, weight, bias in zip(tables, params[::2], params[1::2], strict=True):
            value = torch.addmm(bias, _gather(bank, table[part]), weight.T)
            out += value.relu_() if rectify else value
    return result


def sum_of_convolutions(bank: Tensor, tables: Sequence[Tensor], weights: Sequence[Tensor],
                        biases: Sequence[Tensor], rectify: bool = False) -> Tensor:
    r"""Sum of convolutions of the same rows, with a ReLU on each before it if ``rectify``.

    .. math:: y_i = \sum_b f\Big(\beta_b + \sum_k W_{b,k}\, x_{T_b[i,k]}\Big)

    Memory for a block of gathered rows only, in both passes. Gradients are summed by ``index_add_``
    in float32 at least: deterministic on a CPU, and on a GPU under
    ``torch.use_deterministic_algorithms(True)``.

    Args:
        bank: ``[N + M + 1, C]``, of :attr:`SPSMap.bank`.
        tables: for each branch int32 ``[N, k]``, of :func:`.sps.neighbors`.
        weights: ``[D, k * C]`` each, tap by tap.
        biases: ``[D]`` each.
        rectify: whether to apply a ReLU to each.

    Returns:
        ``[N, D]``, in autocast's dtype where it is on.
    """
    device, dtype = bank.device.type, bank.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    params = [p.to(dtype) for pair in zip(weights, biases, strict=True) for p in pair]
    with torch.autocast(device, enabled=False):
        if not torch.is_grad_enabled():  # tracers cannot look into a Function
            return _sum(bank.to(dtype), tables, rectify, params)
        return _SumOfConvolutions.apply(bank.to(dtype), tuple(tables), rectify, *params)


class SPSConv2d(nn.Module):
    """Convolution of an odd square kernel onto the active cells.

    Args:
        in_channels, out_channels: ``C``, ``D``.
        kernel_size: odd.
        dilation: cells between taps.

    Raises:
        ValueError: the kernel is not odd.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3,
                 dilation: int = 1) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'SPSConv2d.kernel_size must be odd, got {kernel_size}')
        self.offsets = square(kernel_size, dilation)
        self.weight = nn.Parameter(
            torch.empty(out_channels, kernel_size, kernel_size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight.flatten(1), a=math.sqrt(5))  # torch's own for Conv2d
        bound = self.weight[0].numel() ** -0.5
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, D]``."""
        return sum_of_convolutions(
            x.bank, [neighbors(x, self.offsets)], [self.weight.flatten(1)], [self.bias])


class SPSDeformConv2d(nn.Module):
    """Deformable 3x3 convolution: every active cell says where its taps lie.

    The offsets come from the cell's own feature, and start as those of the plain kernel. Taps
    between cells are interpolated bilinearly; beyond the frame there are zeros.

    Args:
        in_channels, out_channels: ``C``, ``D``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset = nn.Linear(in_channels, 2 * 9)
        self.linear = nn.Linear(9 * in_channels, out_channels)
        self.init_offset()

    def init_offset(self) -> None:
        """Let the taps lie as those of the plain kernel."""
        nn.init.zeros_(self.offset.weight)
        with torch.no_grad():
            self.offset.bias.copy_(torch.tensor(square(3)).flatten())

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, D]``."""
        bank = x.bank
        width = 4 * self.linear.in_features  # four cells around each tap
        return torch.cat([checkpoint(self._block, x, bank, part, use_reentrant=False)
                          for part in blocks(len(x.active), width, bank.device)])

    def _block(self, x: SPSMap, bank: Tensor, part: slice) -> Tensor:
        cells = x.cells[part]
        offset = self.offset(x.active[part]).view(len(cells), 9, 2)
        # half precision cannot place a tap on a grid of 112
        offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
        at = cells[:, None, 1:] + offset  # [n, k, (row, column)]
        low = at.detach().floor()
        fraction, low = at - low, low.long()
        total = bank.new_zeros(())
        for dy in (0, 1):
            for dx in (0, 1):
                rows = rows_at(x, cells[:, :1], low[..., 0] + dy, low[..., 1] + dx)
                weight = ((fraction[..., 0] if dy else 1 - fraction[..., 0])
                          * (fraction[..., 1] if dx else 1 - fraction[..., 1]))
                values = bank.index_select(0, rows.flatten()).view(*rows.shape, bank.shape[1])
                total = total + weight[..., None].to(values.dtype) * values
        return self.linear(total.flatten(1))
