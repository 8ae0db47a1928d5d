"""Mask files: 8-bit pictures, numpy arrays, COCO run-length codes. ``H, W``: size of the image."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.fileio import get
from pycocotools import mask as coco

SUFFIXES = ('.png', '.npy', '.json')


def read_mask(path: str | Path) -> np.ndarray:
    """Read one mask as float32 ``[H, W]`` in ``0 .. 1``.

    Args:
        path: a picture (gray, 0 to 255), ``.npy`` (bool; uint8, 0 to 255; or float, 0 to 1), or
            ``.json`` with a COCO run-length code, ``{"size": [H, W], "counts": ...}``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no mask.
    """
    suffix = Path(path).suffix.lower()
    if suffix == '.npy':
        return check_mask(np.load(path, allow_pickle=False), str(path))
    content = get(str(path))
    if suffix == '.json':
        code = json.loads(content)
        if not isinstance(code, dict) or not {'size', 'counts'} <= code.keys():
            raise ValueError(f'{path} holds no run-length code: {{"size": [H, W], "counts": ...}}')
        if isinstance(code['counts'], list):
            code = coco.frPyObjects(code, *code['size'])
        return coco.decode(code).astype(np.float32)
    image = mmcv.imfrombytes(content, flag='unchanged') if content else None
    if image is None:
        raise ValueError(f'{path} is no picture that OpenCV can read')
    return check_mask(image, str(path))


def check_mask(mask: np.ndarray, name: str = 'the mask') -> np.ndarray:
    """An array as float32 ``[H, W]`` in ``0 .. 1``.

    Args:
        mask: bool; uint8, 0 to 255; or float, 0 to 1.
        name: for the error.

    Raises:
        ValueError: shape, dtype or values are others.
    """
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f'{name} must have one channel, [H, W], got {list(mask.shape)}')
    if mask.dtype == bool:
        return mask.astype(np.float32)
    if mask.dtype == np.uint8:
        if 0 < mask.max() < 128:
            raise ValueError(f'{name} goes from {mask.min()} to {mask.max()}: an 8-bit mask goes '
                             'from 0 to 255, and more than 127 is foreground')
        return mask.astype(np.float32) / 255
    if mask.dtype.kind != 'f':
        raise ValueError(f'{name} must be bool, uint8 or float, got {mask.dtype}')
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError(f'{name} must hold probabilities from 0 to 1, got {mask.min():g} to '
                         f'{mask.max():g}')
    return mask.astype(np.float32)


def write_mask(path: str | Path, mask: np.ndarray, *, soft: bool = False) -> None:
    """Write one mask, in the format that the name's suffix says, and the folder it lies in.

    Args:
        path: ``.png``, ``.npy`` or ``.json``.
        mask: float ``[H, W]`` in ``0 .. 1``.
        soft: keep the probabilities (8 bits in a picture) instead of cutting at 0.5.

    Raises:
        ValueError: another suffix, or a soft run-length code.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f'{path} must end in one of {SUFFIXES}')
    if suffix == '.json' and soft:
        raise ValueError(f'{path}: a run-length code cannot be soft')
    path.parent.mkdir(parents=True, exist_ok=True)
    hard = mask > 0.5
    if suffix == '.npy':
        np.save(path, mask.astype(np.float32) if soft else hard)
    elif suffix == '.json':
        code = coco.encode(np.asfortranarray(hard.astype(np.uint8)))
        path.write_text(json.dumps(dict(size=code['size'], counts=code['counts'].decode())))
    elif not cv2.imwrite(str(path), np.rint(255 * (mask if soft else hard)).astype(np.uint8)):
        raise OSError(f'{path} cannot be written')
