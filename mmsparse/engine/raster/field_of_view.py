"""How far a segmentor sees, measured: what windows of a picture must share to fit each other.

Letters: ``B`` images, ``K`` classes, ``H, W`` size.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor

from mmsparse.preprocessing import batch_metas

# Steps of the grids that networks compute on, in pixels: most of mmseg's have 32.
STRIDES = (32, 64, 128)
# Relative difference of float32 scores that is rounding.
TOLERANCE = 1e-4


class FieldOfView(NamedTuple):
    """What a result at a pixel depends on.

    Attributes:
        reach: how far away a pixel can lie, along rows or columns, to change it; in pixels, a
            multiple of ``stride``.
        stride: moved by this many pixels, a picture has the same result, moved.
    """

    reach: int
    stride: int


@torch.no_grad()
def field_of_view(segmentor: BaseSegmentor, side: int) -> FieldOfView | None:
    """Measure a segmentor by what one spoiled block of a random picture does to its scores.

    A NaN goes wherever a network looks, whatever its weights are: through zeros, ReLUs and maxima.
    So this is the whole field of view, of which the part that matters is often a small share. Where
    the network is computed by an algorithm that mixes neighbors (Winograd's), it comes out some
    pixels larger. Whether the same picture, moved, gives the same scores, is tried as well.

    Args:
        segmentor: with ``encode_decode`` of mmseg.
        side: of the picture, in pixels: what sees farther than about its half is not told from what
            sees everything.

    Returns:
        ``None`` if it sees farther than that, or if its result depends on where a pixel lies.
    """
    # What stands in for the class's own method may lose NaNs: OpenVINO's maximum does.
    own = type(segmentor).encode_decode.__get__(segmentor)

    def scores(images: Tensor) -> Tensor:
        return own(images, batch_metas(images)).float()

    noise = torch.randn(1, 3, side + STRIDES[-1], side + STRIDES[-1],
                        generator=torch.Generator().manual_seed(0))
    noise = noise.to(next(segmentor.parameters()).device)
    picture = noise[..., :side, :side]
    still = None
    for stride in STRIDES:
        reach = spread(scores, picture, stride)
        if reach is None:
            return None
        still = scores(picture) if still is None else still
        moved = scores(noise[..., stride:side + stride, stride:side + stride])
        # Away from both frames, where padding is seen.
        inside = slice(reach + stride, side - reach), slice(reach, side - reach - stride)
        a, b = still[..., inside[0], inside[0]], moved[..., inside[1], inside[1]]
        if a.numel() and (a - b).abs().max() <= TOLERANCE * a.abs().max():
            return FieldOfView(reach, stride)
    return None


def spread(scores: Callable[[Tensor], Tensor], picture: Tensor, stride: int) -> int | None:
    """How far from a block of ``stride`` pixels scores change with it, as a multiple of that.

    Args:
        scores: of images ``[1, 3, H, W]``, ``[1, K, H, W]``.
        picture: ``[1, 3, H, W]``, a square.
        stride: side of the block, in pixels.

    Returns:
        ``None`` if they change as far as the picture reaches, or not at all.
    """
    side = picture.shape[-1]
    start = side // 2 // stride * stride
    stop = start + stride
    spoiled = picture.clone()
    spoiled[..., start:stop, start:stop] = torch.nan
    changed = scores(spoiled).isnan().any(1)[0]
    if not changed.any():
        return None
    rows, columns = (changed.any(dim).nonzero().flatten() for dim in (1, 0))
    reach = max(start - int(min(rows[0], columns[0])), int(max(rows[-1], columns[-1])) + 1 - stop)
    return None if reach >= min(start, side - stop) else -(-reach // stride) * stride
