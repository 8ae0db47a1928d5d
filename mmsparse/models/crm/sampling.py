"""Bilinear resizing of a part of a map, by coordinates of the whole map.

A tile that is resized by its own coordinates would not fit its neighbor: an end of it would count
as an end of the image. Letters: ``B`` images, ``C`` channels, ``H, W`` size of a map.
"""
from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsparse.sizes import size_of
from mmsparse.sparse.bilinear import AxisCells, cells_around_pixels

Map = TypeVar('Map', Tensor, np.ndarray)


class Window(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a grid, ends excluded.

    In the order of :meth:`mmsparse.sparse.SparseMap.crop`.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, size: tuple[int, int]) -> Window:
        """With a margin on every side, as far as a grid of ``size = (H, W)`` reaches."""
        return Window(max(self.top - margin, 0), max(self.left - margin, 0),
                      min(self.bottom + margin, size[0]), min(self.right + margin, size[1]))

    def coarser(self, stride: int) -> Window:
        """The cells of ``stride`` pixels that it covers; ``top`` and ``left`` are multiples of it.

        Example: rows 64 to 130 are cells 8 to 17 at stride 8.
        """
        return Window(self.top // stride, self.left // stride,
                      -(-self.bottom // stride), -(-self.right // stride))

    def moved(self, down: int, right: int) -> Window:
        """A window of the same size elsewhere."""
        return Window(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def relative_to(self, other: Window) -> Window:
        """The same pixels, counted from the top left corner of ``other``."""
        return self.moved(-other.top, -other.left)

    def of(self, x: Map) -> Map:
        """This part of ``[..., H, W]``, a view."""
        return x[..., self.top:self.bottom, self.left:self.right]


def whole(size: tuple[int, int]) -> Window:
    """The window that holds all of a grid of ``(H, W)``."""
    return Window(0, 0, *size)


def window_cells(window: Window, size: tuple[int, int], source_size: tuple[int, int]
                 ) -> tuple[AxisCells, AxisCells]:
    """What the rows and the columns of :func:`resize_aligned` read; arguments as there."""
    return (cells_around_pixels(range(window.top, window.bottom), size[0], source_size[0],
                                align_corners=True),
            cells_around_pixels(range(window.left, window.right), size[1], source_size[1],
                                align_corners=True))


def source_window(window: Window, size: tuple[int, int], source_size: tuple[int, int]) -> Window:
    """The part of a map that :func:`resize_aligned` reads for a window of the resized map.

    Args:
        window: of the resized map.
        size: ``(H, W)`` of the whole resized map.
        source_size: ``(H, W)`` of the whole map before.
    """
    if source_size == size:
        return window
    (top, bottom), (left, right) = (
        _read_cells(*axis) for axis in zip(window[:2], window[2:], size, source_size, strict=True))
    return Window(top, left, bottom, right)


def _read_cells(start: int, stop: int, size: int, source: int) -> tuple[int, int]:
    """First cell and end of what pixels ``start`` to ``stop`` of an axis read.

    As :func:`window_cells`, in numbers and not in tensors, whose values an exporter cannot look at.
    """
    step = (source - 1) / max(size - 1, 1)
    return int(start * step), min(int((stop - 1) * step) + 1, source - 1) + 1


def resize_aligned(x: Tensor, size: tuple[int, int], window: Window, *,
                   source_size: tuple[int, int] | None = None, x_window: Window | None = None
                   ) -> Tensor:
    """A window of ``interpolate(whole, size, mode='bilinear', align_corners=True)``.

    Args:
        x: ``[B, C, H, W]``, any dtype: the whole map, or the part ``x_window`` of it.
        size: ``(H, W)`` of the whole map after resizing.
        window: which part of the resized map to compute.
        source_size: ``(H, W)`` of the whole map before resizing; that of ``x`` by default.
        x_window: which part of the whole map ``x`` is; all by default. It contains
            :func:`source_window` of ``window``.

    Returns:
        ``[B, C, *window.size]``, of the dtype of ``x`` if that is a float, else float32.
    """
    source_size = size_of(x) if source_size is None else source_size
    x_window = whole(source_size) if x_window is None else x_window
    dtype = x.dtype if x.dtype.is_floating_point else torch.float32
    if source_size == size:
        return window.relative_to(x_window).of(x).to(dtype)
    if window == whole(size) and x_window == whole(source_size) and x.dtype == dtype:
        return F.interpolate(x, size, mode='bilinear', align_corners=True)
    rows, columns = window_cells(window, size, source_size)
    first, last = int(columns.cells[0, 0]), int(columns.cells[-1, 1])
    x = x[..., first - x_window.left:last + 1 - x_window.left]  # only the columns that are read
    top, bottom = (rows.cells - x_window.top).to(x.device).unbind(1)
    left, right = (columns.cells - first).to(x.device).unbind(1)
    dy, dx = (axis.offset[:, 0].float().to(x.device, dtype) for axis in (rows, columns))
    x = torch.lerp(x[..., top, :].to(dtype), x[..., bottom, :].to(dtype), dy[:, None])
    return torch.lerp(x[..., left], x[..., right], dx)  # [B, C, *window.size]
