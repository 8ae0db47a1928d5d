"""COCO's run-length codes of masks, read and written through patches.

A code lists the lengths of runs of background and foreground, in turn, down the columns of a
mask. ``pycocotools`` goes through every pixel of the image to write or read one; here the cost is
that of a patch around the object. Letters: ``H, W`` size of the image, ``h, w`` of a patch,
``E`` runs of foreground.

Source: the format of COCO's mask API, https://github.com/cocodataset/cocoapi.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco

MAX_PIXELS = 2**30  # as OpenCV reads pictures
MAX_DIGITS = 7  # of five bits, one of them the sign: enough for MAX_PIXELS


class Patch(NamedTuple):
    """Part of a mask that is background elsewhere.

    Attributes:
        mask: bool ``[h, w]``.
        top, left: row and column of its first pixel in the image.
    """

    mask: np.ndarray
    top: int
    left: int


def patch_runs(patch: Patch, height: int) -> np.ndarray:
    """Where foreground begins and ends, counted down the columns of the image.

    Args:
        patch: a part of a mask.
        height: ``H``.

    Returns:
        int64 ``[2 E]``: first pixel of a run, first pixel behind it, of the next run, ...
    """
    columns = np.ascontiguousarray(patch.mask.T)
    h = columns.shape[1]
    padded = np.zeros((len(columns), h + 2), bool)
    padded[:, 1:-1] = columns
    column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), h + 1)
    return (column + patch.left) * height + row + patch.top


def encode_runs(runs: Sequence[np.ndarray], size: tuple[int, int]) -> dict:
    """Code of a mask from the runs of patches that do not overlap.

    Args:
        runs: of :func:`patch_runs`, in any order.
        size: ``(H, W)``.

    Returns:
        A compressed code as of ``pycocotools``, ``{'size': [H, W], 'counts': bytes}``.
    """
    height, width = size
    ends = np.sort(np.concatenate([np.zeros(0, np.int64), *runs]))
    inner = ends[1:-1].reshape(-1, 2)  # the end of a run and the begin of the next
    apart = np.repeat(inner[:, 0] != inner[:, 1], 2)
    ends = np.concatenate([ends[:1], ends[1:-1][apart], ends[-1:]])
    counts = np.diff(ends, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return coco.frPyObjects(dict(size=[height, width], counts=counts), height, width)


def encode_patch(patch: Patch, size: tuple[int, int]) -> dict:
    """Code of a mask ``(H, W)`` that is background outside a patch."""
    return encode_runs([patch_runs(patch, size[0])], size)


def run_ends(code: dict) -> np.ndarray:
    """Where the runs of a code end, background and foreground in turn, int64 ``[2 E]`` or one more.

    ``counts`` are numbers of five-bit digits, the lowest first, each a character from ``'0'``;
    32 says that another digit follows, 16 in the last one that the number is negative. From the
    fourth number on it is the difference to the length of the last run but one.

    Raises:
        ValueError: ``counts`` are no such numbers, or do not fill the mask.
    """
    counts = code['counts']
    characters = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8)
    digits = characters.astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError('counts must be digits from "0" to "o", the last of a number below "P"')
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() >= MAX_DIGITS:
        raise ValueError(f'counts hold a number of more than {MAX_DIGITS} digits')
    places = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((digits & 31) << 5 * places, first)
    numbers -= np.where(digits[last] & 16, 1 << 5 * (places[last] + 1), 0)
    lengths = numbers.copy()
    lengths[1::2] = np.cumsum(numbers[1::2])
    lengths[2::2] = np.cumsum(numbers[2::2])
    return _ends(lengths, code['size'])


def _ends(lengths: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Where runs of these lengths end, if they fill the mask."""
    height, width = size
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f'counts must be lengths whose sum is H * W = {height * width}, got '
                         f'{lengths.sum()}, the shortest {lengths.min()}')
    return np.cumsum(lengths)


def decode_mask(code: dict) -> np.ndarray:
    """A whole mask, bool ``[H, W]``; for codes from anywhere, which ``pycocotools`` trusts.

    Args:
        code: ``size`` and ``counts``, bytes or text or, of an uncompressed code, numbers.

    Raises:
        ValueError: it is no run-length code.
    """
    size, counts = code['size'], code['counts']
    if not _integers(size) or len(size) != 2 or min(size) < 1:
        raise ValueError(f'size must be [H, W], got {size!r:.80}')
    height, width = size
    if height * width > MAX_PIXELS:
        raise ValueError(f'size must be at most {MAX_PIXELS} pixels, got {size!r}')
    if isinstance(counts, (str, bytes)):
        ends = run_ends(code)
    elif _integers(counts) and counts and max(counts) <= MAX_PIXELS >= -min(counts):
        ends = _ends(np.asarray(counts, np.int64), size)
    else:
        raise ValueError(f'counts must be text or lengths of runs, got {counts!r:.80}')
    lengths = np.diff(ends, prepend=0)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def _integers(value: object) -> bool:
    """Whether it is a list of whole numbers."""
    return isinstance(value, list) and all(type(n) is int for n in value)


def decode_patch(code: dict) -> Patch:
    """The part of a mask that holds its foreground; ``[0, 0]`` if there is none.

    Args:
        code: compressed, ``counts`` bytes or text.

    Raises:
        ValueError: it is no run-length code.
    """
    height = code['size'][0]
    ends = run_ends(code)
    begins, behind = ends[0:-1:2], ends[1::2]
    full = behind > begins
    if not full.any():
        return Patch(np.zeros((0, 0), bool), 0, 0)
    begins, behind = begins[full], behind[full]
    left, right = begins[0] // height, (behind[-1] - 1) // height + 1
    steps = np.zeros((right - left) * height + 1, np.int8)
    steps[begins - left * height] += 1
    steps[behind - left * height] -= 1
    columns = np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(-1, height)
    rows = np.flatnonzero(columns.any(0))
    top, bottom = rows[0], rows[-1] + 1
    return Patch(np.ascontiguousarray(columns[:, top:bottom].T), int(top), int(left))
