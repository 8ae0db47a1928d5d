"""Bilinear sampling on part of a grid, by coordinates of the whole: tiles without seams.

Letters: ``B`` images, ``C`` channels, ``H, W`` size.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """Rows ``top .. bottom`` and columns ``left .. right`` of a grid, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, size: tuple[int, int]) -> Window:
        """With a margin on every side, within ``(H, W)``."""
        return Window(max(self.top - margin, 0), min(self.bottom + margin, size[0]),
                      max(self.left - margin, 0), min(self.right + margin, size[1]))

    def over(self, stride: int) -> Window:
        """The same on a grid coarser by ``stride``, of which the origin is a multiple."""
        return Window(self.top // stride, -(-self.bottom // stride),
                      self.left // stride, -(-self.right // stride))

    def within(self, held: Window) -> Window:
        """The same, counted from the origin of another."""
        return Window(self.top - held.top, self.bottom - held.top,
                      self.left - held.left, self.right - held.left)

    def of(self, x: Tensor) -> Tensor:
        """This part of ``[..., H, W]``, a view."""
        return x[..., self.top:self.bottom, self.left:self.right]


def whole(size: tuple[int, int]) -> Window:
    """The window that is everything."""
    return Window(0, size[0], 0, size[1])


def aligned_taps(start: int, stop: int, size: int, source: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbors of some target coordinates, with aligned corners (end points on end points).

    Args:
        start, stop: target coordinates, of ``size``.
        source: size that they are taken from.

    Returns:
        int64 first and second neighbor, float32 weight of the second, ``[stop - start]`` each, on
        the CPU.
    """
    scale = (source - 1) / (size - 1) if size > 1 else 0.0
    position = torch.arange(start, stop, dtype=torch.float64) * scale
    first = position.long().clamp(max=source - 1)
    return first, (first + 1).clamp(max=source - 1), (position - first).float()


def needed(window: Window, size: tuple[int, int], source: tuple[int, int]) -> Window:
    """What of a map of size ``source`` a window of it, resized to ``size``, is made of."""
    if source == size:
        return window
    rows = aligned_taps(window.top, window.bottom, size[0], source[0])
    columns = aligned_taps(window.left, window.right, size[1], source[1])
    return Window(int(rows[0][0]), int(rows[1][-1]) + 1,
                  int(columns[0][0]), int(columns[1][-1]) + 1)


def resize_aligned(x: Tensor, size: tuple[int, int], window: Window, *,
                   source: tuple[int, int] | None = None, held: Window | None = None) -> Tensor:
    """A window of ``interpolate(x, size, mode='bilinear', align_corners=True)``.

    Args:
        x: ``[B, C, H, W]``, any dtype.
        size: that the whole map is resized to.
        window: what of the result is wanted.
        source: size of the whole map, if ``x`` is a part of it.
        held: the part that ``x`` is; it must hold all neighbors of what is wanted.

    Returns:
        ``[B, C, *window.size]``, float32, or the dtype of ``x`` if that is a float.
    """
    source = tuple(x.shape[-2:]) if source is None else source
    held = whole(source) if held is None else held
    dtype = x.dtype if x.dtype.is_floating_point else torch.float32
    if source == size:
        return window.within(held).of(x).to(dtype)
    if window == whole(size) and held == whole(source) and x.dtype == dtype:
        return F.interpolate(x, size, mode='bilinear', align_corners=True)
    top, bottom, dy = aligned_taps(window.top, window.bottom, size[0], source[0])
    left, right, dx = aligned_taps(window.left, window.right, size[1], source[1])
    first, last = int(left[0]), int(right[-1])
    x = x[..., first - held.left:last + 1 - held.left]
    top, bottom, left, right = (taps.to(x.device) for taps in (
        top - held.top, bottom - held.top, left - first, right - first))
    dy, dx = dy.to(x.device, dtype)[:, None], dx.to(x.device, dtype)
    rows = torch.lerp(x[..., top, :].to(dtype), x[..., bottom, :].to(dtype), dy)
    return torch.lerp(rows[..., left], rows[..., right], dx)
