"""From masks on the grids of their boxes to masks of the image, in bounded memory.

Letters: ``R`` instances, ``h, w`` grid of a mask, ``H, W`` size of the image, ``T`` tiles.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mmsparse.rle import Window, encode_runs, window_runs

# Two coordinates and two probabilities, for those of the last tiles still stand, are 16; the rest
# is for masks and what becomes of them.
BYTES_PER_PIXEL = 24
AT_ONCE = dict(cpu=1, cuda=1024)  # tiles in one tensor; a CPU would only lose its cache


class Pasted(NamedTuple):
    """Masks of an image.

    Attributes:
        masks: bool ``[R, H, W]`` on the device of the probabilities; or ``R`` run-length codes as
            ``pycocotools`` gives them, ``{'size': [H, W], 'counts': bytes}``.
        confidence: mean probability of the foreground of each mask, float32 ``[R]``, 0 for an
            empty one. EffSeg (arXiv 2307.01545), eq. (3), scales the score of a mask by it.
    """

    masks: Tensor | list[dict]
    confidence: Tensor


def paste_windows(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels that a pasted mask can cover: its box, rounded outwards, and one more on each side.

    Args:
        boxes: float ``[R, 4]``, x1, y1, x2, y2 in pixels of the image.
        size: ``(H, W)``.

    Returns:
        int64 ``[R, 4]``: left, top, right, bottom, within the image; all 0 for a box without area,
        with a coordinate that is no finite number, or wholly outside the image.
    """
    limit = boxes.new_tensor([size[1], size[0]])
    low, high = boxes[:, :2], boxes[:, 2:]
    good = boxes.isfinite().all(1) & ((low < high) & (low < limit) & (high > 0)).all(1)
    low = torch.minimum((low.floor() - 1).clamp(min=0), limit)
    high = torch.minimum((high.ceil() + 1).clamp(min=0), limit)
    return torch.where(good[:, None], torch.cat([low, high], 1), 0).long()


def plan_tiles(windows: Tensor, max_pixels: int) -> Tensor:
    """Cut windows into upright strips.

    Args:
        windows: of :func:`paste_windows`, on the CPU.
        max_pixels: of a tile; one column may have more.

    Returns:
        int64 ``[T, 5]``: instance, left, top, right, bottom; the larger ones first.
    """
    tiles = []
    for i, (left, top, right, bottom) in enumerate(windows.tolist()):
        if top < bottom:
            columns = max(1, max_pixels // (bottom - top))
            tiles += [(i, x, top, min(x + columns, right), bottom)
                      for x in range(left, right, columns)]
    tiles.sort(key=lambda tile: (tile[1] - tile[3]) * (tile[4] - tile[2]))
    return torch.tensor(tiles, dtype=torch.int64).view(-1, 5)


def group_tiles(tiles: Tensor, max_pixels: int, most: int) -> Iterator[Tensor]:
    """Groups of at most so many tiles that, filled up to the largest, keep to a bound together."""
    start = 0
    sides = tiles[:, 3:] - tiles[:, 1:3]
    while start < len(tiles):
        area = torch.cummax(sides[start:start + most], 0).values.prod(1)
        area = area * torch.arange(1, len(area) + 1)
        count = max(1, int((area <= max_pixels).sum()))
        yield tiles[start:start + count]
        start += count


def sample_tiles(probabilities: Tensor, boxes: Tensor, tiles: Tensor) -> Tensor:
    """Bilinear samples of masks at the pixel centers of one tile each.

    A pixel at ``x`` reads the grid at ``(x + 0.5 - x1) / (x2 - x1)`` of its width; beyond the grid
    the mask is 0. This is mmdet's ``_do_paste_mask``, to the last bit, for a part of the image.

    Args:
        probabilities: float32 ``[T, 1, h, w]``.
        boxes: float32 ``[T, 4]``.
        tiles: of :func:`plan_tiles`, on the CPU.

    Returns:
        float32 ``[T, height, width]`` of the largest tile; pixels beyond a tile are 0.
    """
    width, height = (tiles[:, 3:] - tiles[:, 1:3]).amax(0).tolist()
    tiles = tiles.to(boxes.device)
    grid = probabilities.new_empty(len(tiles), height, width, 2)
    for axis, pixels in enumerate((width, height)):
        steps = torch.arange(pixels, device=tiles.device)
        position = steps + tiles[:, 1 + axis, None]
        low, high = boxes[:, axis, None], boxes[:, 2 + axis, None]
        place = (position.float() + 0.5 - low) / (high - low) * 2 - 1
        # beyond -2 .. 2 there is nothing; a tiny box may have divided by almost 0
        place = place.clamp_(-3, 3).masked_fill_(position >= tiles[:, 3 + axis, None], 3)
        grid[..., axis] = place[:, None, :] if axis == 0 else place[:, :, None]
    return grid_sample(probabilities, grid, align_corners=False)[:, 0]


@torch.no_grad()
def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], *,
                threshold: float = 0.5, encode: bool = False, max_bytes: int = 64 * 2**20
                ) -> Pasted:
    """Paste masks into their boxes, cut them at a threshold, and say how sure they are.

    Each mask is computed in its own window only, by bilinear sampling; on the CPU one after the
    other, on a GPU several at once. Windows that need more than ``max_bytes`` are done in strips.

    Args:
        probabilities: ``[R, 1, h, w]``, of the foreground.
        boxes: ``[R, 4]``, x1, y1, x2, y2 in pixels of the image. One that has no area, is not
            finite or lies outside the image gives an empty mask.
        size: ``(H, W)``.
        threshold: probabilities above it are foreground, ``0 <= threshold < 1``.
        encode: give run-length codes instead of ``R * H * W`` bytes.
        max_bytes: bound of the memory that it works in, besides arguments and result.

    Raises:
        ValueError: an argument is none of these.
    """
    check(probabilities, boxes, size, threshold, max_bytes)
    boxes, device = boxes.float(), probabilities.device
    max_pixels = max(1, max_bytes // BYTES_PER_PIXEL)
    count, total = torch.zeros(2, len(boxes), dtype=torch.float64, device=device)
    masks = None if encode else torch.zeros(len(boxes), *size, dtype=torch.bool, device=device)
    runs = [[] for _ in boxes]
    tiles = plan_tiles(paste_windows(boxes, size).cpu(), max_pixels)
    for group in group_tiles(tiles, max_pixels, AT_ONCE.get(device.type, 1)):
        instances = group[:, 0].to(device)
        sampled = sample_tiles(probabilities.index_select(0, instances).float(),
                               boxes.index_select(0, instances), group)
        inside = sampled > threshold
        count.index_add_(0, instances, inside.sum(2, dtype=torch.int32).sum(1).double())
        total.index_add_(0, instances, sampled.mul_(inside).sum(2).sum(1, dtype=torch.float64))
        if encode:
            inside = inside.cpu().numpy()
        for mask, (i, left, top, right, bottom) in zip(inside, group.tolist(), strict=True):
            mask = mask[:bottom - top, :right - left]
            if encode:
                runs[i].append(window_runs(Window(mask, top, left), size[0]))
            else:
                masks[i, top:bottom, left:right] = mask
    confidence = (total / (count + 1e-6)).float()
    return Pasted([encode_runs(r, size) for r in runs] if encode else masks, confidence)


def check(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float,
          max_bytes: int) -> None:
    """Refuse wrong arguments of :func:`paste_masks`."""
    if probabilities.ndim != 4 or probabilities.shape[1] != 1 or 0 in probabilities.shape[2:]:
        raise ValueError('probabilities must be [R, 1, h, w], got '
                         f'{list(probabilities.shape)}')
    if boxes.shape != (len(probabilities), 4):
        raise ValueError(f'boxes must be [{len(probabilities)}, 4], one for each mask, got '
                         f'{list(boxes.shape)}')
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'size must be (H, W) in pixels, got {size!r}')
    if not 0 <= threshold < 1:
        raise ValueError(f'threshold must be in [0, 1), got {threshold!r}')
    if max_bytes < 1:
        raise ValueError(f'max_bytes must be at least 1, got {max_bytes!r}')
