"""Where bilinear interpolation reads: the cells around positions on an axis. ``T`` positions."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AxisCells(NamedTuple):
    """The two cells around each position on an axis.

    Attributes:
        cells: int64 ``[T, 2]``, the cell before and the cell after; one beyond an end is moved to
            the last cell there.
        offset: ``[T, 2]``, position minus cell, in cells. The first is the weight of the second
            cell; where both are the last one it does not matter.
    """

    cells: Tensor
    offset: Tensor


def cells_around_pixels(pixels: range, size: int, source: int, *, align_corners: bool = False,
                        device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float64
                        ) -> AxisCells:
    """The cells that pixels of a resized axis read; a cell lies at its number.

    Example: of 10 cells, a pixel at 2.25 reads the cells 2 and 3, at offsets 0.25 and -0.75, and
    one at -0.5 the cell 0 twice, at -0.5.

    Args:
        pixels: their numbers.
        size: pixels of the whole axis.
        source: cells of the whole axis.
        align_corners: whether the end pixels lie on the end cells, or the ends of both axes on
            each other.
        device: of the result.
        dtype: of the offsets; what positions are computed in.
    """
    position = torch.arange(pixels.start, pixels.stop, device=device, dtype=dtype)
    if align_corners:
        position = position * ((source - 1) / max(size - 1, 1))
    else:
        position = (position + 0.5) * (source / size) - 0.5
    cells = position.floor().long()[:, None] + torch.tensor([0, 1], device=device)
    cells = cells.clamp_(0, source - 1)
    return AxisCells(cells, position[:, None] - cells)
