"""The nested grids of an output pyramid: cells, their children and parents, some cells of a map.

A cell ``(i, j)`` of stride ``s`` covers the pixels ``[i s, (i + 1) s) x [j s, (j + 1) s)``. An
image of ``H x W`` pixels has ``ceil(H / s) x ceil(W / s)`` of them; grids of strides that divide
each other nest, whatever the size. Levels go from coarse to fine. Letters: ``B`` images, ``C``
channels, ``H, W`` size in pixels, ``h, w`` cells of a level, ``N`` chosen cells of one image, ``L``
levels.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

UP_MODES = ('nearest', 'bilinear')


def check(name: str, key: str, value: object, allowed: Sequence) -> None:
    """Refuse a value that is not one of those allowed.

    Raises:
        ValueError: says key, value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f'{name}.{key} must be one of {tuple(allowed)}, got {value!r}')


def level_ratios(strides: Sequence[int]) -> tuple[int, ...]:
    """How many cells of a level lie side by side in one of the level before, ``L - 1`` of them.

    Raises:
        ValueError: a stride does not divide the one before it.
    """
    pairs = list(zip(strides, strides[1:], strict=False))
    if not strides or min(strides) < 1 or any(a % b or a == b for a, b in pairs):
        raise ValueError('strides must go from coarse to fine, each a proper divisor of the one '
                         f'before, as (32, 16, 8, 4); got {tuple(strides)}')
    return tuple(a // b for a, b in pairs)


def grid_size(size: Sequence[int], stride: int) -> tuple[int, int]:
    """Rows and columns of cells in an image of ``size`` pixels."""
    return -(-int(size[0]) // stride), -(-int(size[1]) // stride)


def up(x: Tensor, ratio: int, size: Sequence[int], mode: str = 'nearest') -> Tensor:
    """Give the cells' values to the finer grid.

    Enlarged by exactly ``ratio``, then cut: resizing to ``size`` instead would let cells of an odd
    grid read the wrong parent (16 rows to 125: row 63 would read row 8, its parent is 7).

    Args:
        x: ``[..., h, w]``, any dtype; ``[B, C, h, w]``, floating, for ``'bilinear'``.
        ratio: children of a cell per side.
        size: rows and columns of the finer grid, at most ``ratio`` times those of ``x``.
        mode: ``'nearest'``, every child has its parent's value, or ``'bilinear'``.

    Returns:
        ``[..., *size]``.
    """
    if mode == 'bilinear':
        x = F.interpolate(x, scale_factor=ratio, mode='bilinear', align_corners=False)
    else:
        *lead, h, w = x.shape
        x = x[..., :, None, :, None].expand(*lead, h, ratio, w, ratio)
        x = x.reshape(*lead, h * ratio, w * ratio)
    return x[..., :int(size[0]), :int(size[1])]


def done_cells(settled: Sequence[Tensor], ratios: Sequence[int], sizes: Sequence[Sequence[int]]
               ) -> list[Tensor]:
    """Cells of the finer levels that lie in a settled cell of any coarser level.

    ``D(1)`` is empty, ``D(l + 1) = up(D(l) or settled(l))``. Settled are true positives in training
    (supplement, re-labelling) and all cells predicted as unity in inference; the other cells are
    the active ones.

    Args:
        settled: bool ``[..., h, w]`` of the levels but the finest.
        ratios: of :func:`level_ratios`.
        sizes: rows and columns of the levels but the coarsest.

    Returns:
        bool ``[..., h, w]`` of the levels but the coarsest.
    """
    done: list[Tensor] = []
    for cells, ratio, size in zip(settled, ratios, sizes, strict=True):
        done.append(up(cells | done[-1] if done else cells, ratio, size))
    return done


def gather_cells(x: Tensor, cells: Tensor) -> Tensor:
    """Some cells of one image, ``[1, C, h, w]`` to ``[1, C, 1, N]``: still a map, to any 1x1 layer.

    Args:
        cells: int64 ``[N]``, ``row * w + column``.
    """
    return x.flatten(2).index_select(2, cells)[:, :, None]


def scatter_cells(x: Tensor, cells: Tensor, values: Tensor) -> Tensor:
    """The map with other values at some cells: the inverse of :func:`gather_cells`.

    Args:
        x: ``[1, C, h, w]``, may be overwritten.
        cells: int64 ``[N]``.
        values: ``[1, C, 1, N]``.
    """
    return x.flatten(2).index_copy_(2, cells, values.flatten(2)).view(x.shape)


def parent_cells(cells: Tensor, columns: int, ratio: int) -> Tensor:
    """Numbers of the parents on the coarser grid.

    Args:
        cells: int64 ``[N]``.
        columns: ``w`` of their grid.
        ratio: children of a parent per side.
    """
    row = torch.div(cells, columns, rounding_mode='floor')
    return torch.div(row, ratio, rounding_mode='floor') * -(-columns // ratio) + torch.div(
        cells - row * columns, ratio, rounding_mode='floor')
