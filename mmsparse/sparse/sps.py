r"""Structure-Preserving Sparsity: compute on active cells, and keep everything else readable.

Grids are halved where it matters and frozen where it does not: *active* rows hold the features of
single cells, a *passive* row is what was frozen and may stand for many cells of the finer grid, and
an index map says for every cell which row is its own. So an operation computes active rows only and
still sees the true neighbors of each.

Source: Picron and Tuytelaars, "EffSeg: Efficient Fine-Grained Instance Segmentation using
Structure-Preserving Sparsity", 2023, sec. 3.2. Letters: ``R`` grids (one per RoI), ``H, W`` their
size, ``N`` active and ``M`` passive rows, ``C, D`` channels in and out, ``k`` taps of a kernel.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Checks that read every row. They cost a pass and a device sync, so they are for tests and for
# hunting a bug.
DEBUG = os.environ.get('MMSPARSE_DEBUG', '0') not in ('', '0')

Offsets = Sequence[tuple[int, int]]  # rows and columns from a cell to its taps


class SPSMap(NamedTuple):
    """Grids with active and passive cells.

    Rows lie in raster order of their grids' first cells, the four children of a cell side by side.

    Attributes:
        active: ``[N, C]``, a row per active cell.
        passive: ``[M, C]``, in the order in which they were frozen. A row frozen ``j`` splits ago
            stands for an aligned square of ``2^j x 2^j`` cells of one grid.
        index: int32 ``[R, H, W]``, row of each cell: below ``N`` active, from ``N`` on passive.
        cells: int64 ``[N, 3]``, grid, row and column of every active cell.
    """

    active: Tensor
    passive: Tensor
    index: Tensor  # type: ignore[assignment]  # the method of tuples is not used
    cells: Tensor

    @property
    def bank(self) -> Tensor:
        """All rows and one of zeros, which is what cells beyond the frame hold, ``[N+M+1, C]``."""
        return torch.cat([
            self.active, self.passive, self.active.new_zeros(1, self.active.shape[1])])


def from_dense(x: Tensor) -> SPSMap:
    """All cells of ``[R, C, H, W]`` as active ones."""
    r, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, c)
    cells = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in (r, h, w)))
    index = torch.arange(r * h * w, dtype=torch.int32, device=x.device).view(r, h, w)
    return SPSMap(rows, rows.new_empty(0, c), index, cells)


def to_dense(x: SPSMap) -> Tensor:
    """What every cell holds, ``[R, C, H, W]``."""
    rows = torch.cat([x.active, x.passive])
    return rows.index_select(0, x.index.flatten()).view(*x.index.shape, -1).permute(0, 3, 1, 2)


def select(x: SPSMap, keep: Tensor) -> SPSMap:
    """Freeze active cells.

    Args:
        x: the grids.
        keep: bool ``[N]``, which active cells stay so.

    Returns:
        The grids with the other rows behind the passive ones.
    """
    n, m = len(x.active), len(x.passive)
    kept, frozen = keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]
    number = torch.empty(n + m, dtype=torch.int32, device=keep.device)
    number[torch.cat([kept, torch.arange(n, n + m, device=keep.device), frozen])] = torch.arange(
        n + m, dtype=torch.int32, device=keep.device)
    return _checked(SPSMap(
        x.active[kept], torch.cat([x.passive, x.active[frozen]]),
        number.index_select(0, x.index.flatten()).view_as(x.index), x.cells[kept]))


def split(x: SPSMap, children: Tensor) -> SPSMap:
    """Grids of twice the size: every active cell becomes four, passive ones cover four times more.

    Args:
        x: the grids.
        children: ``[N, 4, D]``, features of the top left, top right, bottom left and bottom right
            child of every active cell.

    Returns:
        The grids; passive rows are as they were, so ``D`` is ``C`` where there are any.
    """
    (n, four, _), (r, h, w) = children.shape, x.index.shape
    child = torch.arange(four, device=x.index.device)
    old = x.index[:, :, None, :, None]
    index = torch.where(old < n, 4 * old + child.int().view(2, 1, 2), old + 3 * n)
    cells = x.cells[:, None] * x.cells.new_tensor([1, 2, 2]) + torch.stack(
        [child * 0, child // 2, child % 2], 1)
    return _checked(SPSMap(children.flatten(0, 1), x.passive, index.reshape(r, 2 * h, 2 * w),
                           cells.flatten(0, 1)))


def square(size: int, dilation: int = 1) -> list[tuple[int, int]]:
    """Offsets of an odd kernel, row by row."""
    reach = range(-(size // 2) * dilation, size // 2 * dilation + 1, dilation)
    return [(dy, dx) for dy in reach for dx in reach]


def neighbors(x: SPSMap, offsets: Offsets) -> Tensor:
    """Rows of :attr:`SPSMap.bank` that the taps of every active cell read.

    Integers only, so a table serves every layer between two changes of the grids.

    Args:
        x: the grids.
        offsets: of the ``k`` taps.

    Returns:
        int32 ``[N, k]``.
    """
    steps = torch.tensor(offsets, device=x.index.device)
    return rows_at(x, x.cells[:, :1], x.cells[:, 1:2] + steps[:, 0], x.cells[:, 2:] + steps[:, 1])


def rows_at(x: SPSMap, grid: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Rows of :attr:`SPSMap.bank` at cells, int32; the zero row where a cell is beyond the frame.

    Args:
        x: the grids.
        grid, row, column: int64, shapes that broadcast.
    """
    _, h, w = x.index.shape
    outside = (row < 0) | (row >= h) | (column < 0) | (column >= w)
    cell = ((grid * h + row) * w + column).masked_fill_(outside, 0)
    found = x.index.flatten().index_select(0, cell.flatten()).view_as(cell)
    return found.masked_fill_(outside, len(x.active) + len(x.passive))


def keep_best(score: Tensor, group: Tensor, groups: int, budget: int) -> Tensor:
    """The ``budget`` rows of the highest score in each group, exactly so many even among ties.

    Args:
        score: ``[N]``, compared in float32: half precision has many ties.
        group: int64 ``[N]``, the image or grid of every row, in ascending order.
        groups: how many there are.
        budget: rows per group; a smaller group is kept whole.

    Returns:
        bool ``[N]``. Groups do not influence each other.
    """
    if len(score) <= budget:
        return torch.ones_like(score, dtype=torch.bool)
    # by group, then by score; stable, so that of equal scores the first row is taken
    order = score.float().argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    count = torch.bincount(group, minlength=groups)
    rank = torch.arange(len(score), device=score.device) - (count.cumsum(0) - count)[group[order]]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(0, order, rank < budget)


def check(x: SPSMap) -> None:
    """Assert what holds for any grids; ``MMSPARSE_DEBUG=1`` does so after every change of them.

    Raises:
        AssertionError: something does not.
    """
    n, m = len(x.active), len(x.passive)
    (r, h, w), cells = x.index.shape, x.cells
    assert x.index.dtype == torch.int32 and cells.shape == (n, 3), 'dtype or shape'
    flat = x.index.flatten().long()
    count = torch.bincount(flat, minlength=n + m)
    assert len(count) == n + m, 'a cell names a row that is not there'
    assert bool((count[:n] == 1).all()), 'an active row stands for one cell'
    assert bool((x.index[tuple(cells.T)] == torch.arange(n, device=cells.device)).all()), (
        'cells and index disagree')
    side = count[n:].double().sqrt()
    assert bool((side.log2() % 1 == 0).all()), 'a passive row stands for 4^j cells'
    place = torch.cartesian_prod(*(torch.arange(k, device=flat.device) for k in (r, h, w)))
    low, high = (place.new_zeros(n + m, 3).scatter_reduce(
        0, flat[:, None].expand(-1, 3), place, how, include_self=False)[n:]
        for how in ('amin', 'amax'))
    span = torch.stack([side * 0, side - 1, side - 1], 1)
    assert bool((high - low == span).all()), 'of one square'
    assert bool((low[:, 1:] % side[:, None] == 0).all()), 'that is aligned'


def _checked(x: SPSMap) -> SPSMap:
    if DEBUG:
        check(x)
    return x
