"""Pasting masks, which are predicted on a grid within each box, into the image, in bounded memory.

The pixels that a mask may cover, its window, are computed whole or, if that takes too much memory,
in strips: parts of the window of its full height. Letters: ``R`` instances, ``h, w`` grid of a
mask, ``H, W`` size of the image, ``S`` strips.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mmsparse.rle import Patch, encode_runs, patch_runs

# Memory of one pixel while strips are sampled. Two coordinates and two probabilities in float32, of
# these strips and of the last ones, which are not freed yet, take 16 bytes; the rest is for the
# masks and their codes.
BYTES_PER_PIXEL = 24
# Number of strips that are sampled in one tensor. On a CPU more than one is slower: they leave its
# cache.
STRIPS_AT_ONCE = dict(cpu=1, cuda=1024)


class Pasted(NamedTuple):
    """The masks of an image.

    Attributes:
        masks: bool ``[R, H, W]`` on the device of the probabilities; or ``R`` run-length codes as
            ``pycocotools`` gives them, ``{'size': [H, W], 'counts': bytes}``.
        confidence: float32 ``[R]``, mean of the probabilities of each mask's foreground pixels, 0
            for an empty mask. By EffSeg (arXiv 2307.01545), eq. (3), an instance's score times
            this is the score of its mask.
    """

    masks: Tensor | list[dict]
    confidence: Tensor


def paste_windows(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels that a pasted mask can cover: its box, rounded outwards, and one more on each side.

    Args:
        boxes: float ``[R, 4]``, x1, y1, x2, y2 in pixels of the image.
        size: ``(H, W)``.

    Returns:
        int64 ``[R, 4]``: left, top, right, bottom, the last two excluded, within the image; all 0
        for a box without area, with an infinite or NaN coordinate, or wholly outside the image.
    """
    limit = boxes.new_tensor([size[1], size[0]])
    low, high = boxes[:, :2], boxes[:, 2:]
    valid = boxes.isfinite().all(1) & ((low < high) & (low < limit) & (high > 0)).all(1)
    low = torch.minimum((low.floor() - 1).clamp(min=0), limit)
    high = torch.minimum((high.ceil() + 1).clamp(min=0), limit)
    return torch.where(valid[:, None], torch.cat([low, high], 1), 0).long()


def cut_into_strips(windows: Tensor, max_pixels: int) -> Tensor:
    """Cut each window into strips of its full height.

    Args:
        windows: of :func:`paste_windows`, on the CPU.
        max_pixels: of a strip; one that is a single column may have more.

    Returns:
        int64 ``[S, 5]``: instance, left, top, right, bottom; those of more pixels first.
    """
    strips = []
    for i, (left, top, right, bottom) in enumerate(windows.tolist()):
        if top < bottom:
            columns = max(1, max_pixels // (bottom - top))
            strips += [(i, x, top, min(x + columns, right), bottom)
                       for x in range(left, right, columns)]
    strips.sort(key=lambda strip: (strip[1] - strip[3]) * (strip[4] - strip[2]))
    return torch.tensor(strips, dtype=torch.int64).view(-1, 5)


def group_strips(strips: Tensor, max_pixels: int, max_strips: int) -> Iterator[Tensor]:
    """Put consecutive strips into groups, each of which is sampled in one tensor.

    In that tensor every strip is padded to the greatest height and width of its group.

    Args:
        strips: of :func:`cut_into_strips`.
        max_pixels: of a group, padding included; a group of one strip may have more.
        max_strips: of a group.

    Yields:
        Consecutive rows of ``strips``, which together are all.
    """
    start = 0
    sides = strips[:, 3:] - strips[:, 1:3]
    while start < len(strips):
        # pixels of the group if it ended with this strip
        area = torch.cummax(sides[start:start + max_strips], 0).values.prod(1)
        area = area * torch.arange(1, len(area) + 1)
        count = max(1, int((area <= max_pixels).sum()))
        yield strips[start:start + count]
        start += count


def sample_strips(probabilities: Tensor, boxes: Tensor, strips: Tensor) -> Tensor:
    """Sample one mask at the pixel centers of each strip, bilinearly.

    A pixel at ``x`` reads the grid at ``(x + 0.5 - x1) / (x2 - x1)`` of its width; beyond the grid
    the mask is 0. This is mmdet's ``_do_paste_mask``, to the last bit, for a part of the image.

    Args:
        probabilities: float32 ``[S, 1, h, w]``, the mask of each strip's instance.
        boxes: float32 ``[S, 4]``, its box.
        strips: int64 ``[S, 5]``, of :func:`cut_into_strips`, on the CPU.

    Returns:
        float32 ``[S, height, width]`` with the greatest height and width of the strips; pixels
        beyond a strip are 0.
    """
    width, height = (strips[:, 3:] - strips[:, 1:3]).amax(0).tolist()
    strips = strips.to(boxes.device)
    grid = probabilities.new_empty(len(strips), height, width, 2)
    for axis, pixels in enumerate((width, height)):
        steps = torch.arange(pixels, device=strips.device)
        position = steps + strips[:, 1 + axis, None]  # [S, pixels], of the image
        low, high = boxes[:, axis, None], boxes[:, 2 + axis, None]
        on_grid = (position.float() + 0.5 - low) / (high - low) * 2 - 1  # -1 to 1 within the box
        # Beyond -2 to 2 every sample is 0, so 3 stands for all that is farther: for the padding
        # beyond a strip, and for a tiny box, which has divided by almost 0.
        on_grid = on_grid.clamp_(-3, 3).masked_fill_(position >= strips[:, 3 + axis, None], 3)
        grid[..., axis] = on_grid[:, None, :] if axis == 0 else on_grid[:, :, None]
    return grid_sample(probabilities, grid, align_corners=False)[:, 0]


@torch.no_grad()
def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], *,
                threshold: float = 0.5, encode: bool = False, max_bytes: int = 64 * 2**20
                ) -> Pasted:
    """Paste masks into their boxes, binarize them, and compute their mean probability.

    Each mask is computed in its own window alone, by bilinear sampling: on a CPU one after the
    other, on a GPU several in one tensor. A window that needs more than ``max_bytes`` is computed
    in strips.

    Args:
        probabilities: ``[R, 1, h, w]``, of the foreground.
        boxes: ``[R, 4]``, x1, y1, x2, y2 in pixels of the image. A box that has no area, is not
            finite or is outside the image gives an empty mask.
        size: ``(H, W)``.
        threshold: probabilities above it are foreground, ``0 <= threshold < 1``.
        encode: give run-length codes instead of a tensor of ``R * H * W`` bytes.
        max_bytes: memory to work in, besides arguments and result.

    Raises:
        ValueError: an argument is out of range, or has another shape.
    """
    check_arguments(probabilities, boxes, size, threshold, max_bytes)
    boxes, device = boxes.float(), probabilities.device
    max_pixels = max(1, max_bytes // BYTES_PER_PIXEL)
    count, total = torch.zeros(2, len(boxes), dtype=torch.float64, device=device)
    masks = torch.zeros(0 if encode else len(boxes), *size, dtype=torch.bool, device=device)
    runs: list[list[np.ndarray]] = [[] for _ in boxes]
    strips = cut_into_strips(paste_windows(boxes, size).cpu(), max_pixels)
    for group in group_strips(strips, max_pixels, STRIPS_AT_ONCE.get(device.type, 1)):
        instances = group[:, 0].to(device)
        sampled = sample_strips(probabilities.index_select(0, instances).float(),
                                boxes.index_select(0, instances), group)
        inside = sampled > threshold
        count.index_add_(0, instances, inside.sum(2, dtype=torch.int32).sum(1).double())
        total.index_add_(0, instances, sampled.mul_(inside).sum(2).sum(1, dtype=torch.float64))
        if encode:
            inside = inside.cpu()
        for mask, (i, left, top, right, bottom) in zip(inside, group.tolist(), strict=True):
            mask = mask[:bottom - top, :right - left]
            if encode:
                runs[i].append(patch_runs(Patch(mask.numpy(), top, left), size[0]))
            else:
                masks[i, top:bottom, left:right] = mask
    confidence = (total / (count + 1e-6)).float()
    return Pasted([encode_runs(r, size) for r in runs] if encode else masks, confidence)


def check_arguments(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float,
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
