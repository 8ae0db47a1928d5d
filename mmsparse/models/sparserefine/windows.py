"""Refinement window by window, for images whose selected pixels do not fit into memory at once.

And what a ``test_cfg`` may say of it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import ConfigDict
from torch import Tensor

from mmsparse.sparse import SparseMap


def is_size(value: Any) -> bool:
    """Whether it is ``(height, width)`` in pixels: two integers from 1."""
    return (isinstance(value, Sequence) and len(value) == 2
            and all(type(n) is int and n >= 1 for n in value))


def check_windows(crop_size: Any, stride: Any) -> None:
    """Refuse windows that leave out pixels.

    Raises:
        ValueError: one is no pair of integers from 1, or the stride is larger than the crop.
    """
    for name, value in dict(crop_size=crop_size, stride=stride).items():
        if not is_size(value):
            raise ValueError(f'test_cfg.{name} must be (height, width) in pixels, got {value!r}')
    if any(step > crop for step, crop in zip(stride, crop_size, strict=True)):
        raise ValueError(f'test_cfg.stride {tuple(stride)} must not exceed crop_size '
                         f'{tuple(crop_size)}: pixels between two windows would get no result')


def check_test_cfg(test_cfg: dict | None) -> ConfigDict:
    """A ``test_cfg`` of :class:`.SparseRefineSegmentor`, its defaults filled in.

    Raises:
        ValueError: a key is unknown or missing, or a value is out of range.
    """
    default = dict(mode='whole', seg_logits=True, keep_score=False)
    test_cfg = ConfigDict(default | dict(test_cfg or {}))
    needed = dict(whole=set(), slide={'crop_size', 'stride'})
    if test_cfg['mode'] not in needed:
        raise ValueError(f"test_cfg.mode must be 'whole' or 'slide', got {test_cfg['mode']!r}")
    wanted = set(default) | needed[test_cfg['mode']]
    if set(test_cfg) != wanted:
        raise ValueError(f'test_cfg of mode {test_cfg["mode"]!r} has the keys '
                         f'{sorted(wanted)}, got {sorted(test_cfg)}')
    for name in ('seg_logits', 'keep_score'):
        if not isinstance(test_cfg[name], bool):
            raise ValueError(f'test_cfg.{name} must be True or False, got {test_cfg[name]!r}')
    if test_cfg['mode'] == 'slide':
        check_windows(test_cfg['crop_size'], test_cfg['stride'])
    return test_cfg


def windows(size: tuple[int, int], crop_size: tuple[int, int],
            stride: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """mmseg's sliding windows over an image.

    The last window of an axis is moved back inside, so all have ``crop_size`` unless the image is
    smaller than that.

    Yields:
        ``(top, left, bottom, right)``.
    """
    def starts(n: int, crop: int, step: int) -> list[int]:
        count = max(n - crop + step - 1, 0) // step + 1
        return [max(min(i * step, n - crop), 0) for i in range(count)]

    height, width = size
    for top in starts(height, crop_size[0], stride[0]):
        for left in starts(width, crop_size[1], stride[1]):
            yield top, left, min(top + crop_size[0], height), min(left + crop_size[1], width)


def refine_windows(refine: Callable[[SparseMap, Tensor], Tensor], pixels: SparseMap,
                   low_logits: Tensor, *, crop_size: tuple[int, int],
                   stride: tuple[int, int]) -> Tensor:
    """Refine each window by itself and average where windows overlap.

    Sums are kept for the selected pixels only, never for the map.

    Args:
        refine: ``(pixels, logits [n, K]) -> logits [n, K]``.
        pixels: the selected pixels of the whole image.
        low_logits: ``[N, K]``.
        crop_size, stride: of the windows, in pixels ``(height, width)``.

    Returns:
        ``[N, K]``; with one window exactly ``refine(pixels, low_logits)``.
    """
    total = count = None
    for window in windows(pixels.topology.spatial_shape, crop_size, stride):
        part, rows = pixels.crop(*window)
        refined = refine(part, low_logits[rows])
        if total is None or count is None:
            total = refined.new_zeros(low_logits.shape)
            count = refined.new_zeros(low_logits[:, :1].shape)
        total[rows] += refined
        count[rows] += 1
    assert total is not None and count is not None  # an image has a window
    return total / count
