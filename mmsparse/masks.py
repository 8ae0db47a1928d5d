"""Mask files: 8-bit pictures, numpy arrays, COCO run-length codes. ``H, W``: size of the image."""
from __future__ import annotations

import io
import json
from pathlib import Path
from tokenize import TokenError

import cv2
import numpy as np
from mmengine.fileio import get
from pycocotools import mask as coco

from mmsparse.pictures import decode
from mmsparse.rle import decode_mask

SUFFIXES = ('.png', '.npy', '.json')

# What numpy raises for headers that are no dict of shape and type, or promise too much.
NO_ARRAY = (ValueError, TypeError, MemoryError, OverflowError, RecursionError, TokenError)


def read_mask(path: str | Path, backend_args: dict | None = None) -> np.ndarray:
    """Read one mask as float32 ``[H, W]`` in ``0 .. 1``.

    Args:
        path: a picture (gray, 0 to 255, as stored), ``.npy`` (bool; uint8, 0 to 255; or float, 0
            to 1), or ``.json`` with a COCO run-length code, ``{"size": [H, W], "counts": ...}``.
        backend_args: of mmengine's file backends.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no mask.
    """
    content = get(str(path), backend_args=backend_args)
    suffix = Path(path).suffix.lower()
    if suffix == '.npy':
        return check_mask(decode_array(content, str(path)), str(path))
    if suffix == '.json':
        return _decode_code(content, str(path)).astype(np.float32)
    image = decode(content, str(path), 'unchanged')
    if image.ndim == 3:
        palette = content[:4] == b'\x89PNG' and content[25] == 3  # the color type
        image = _gray(image, f'{path} has a palette, as class maps of Pascal VOC do, and'
                             if palette else f'{path}')
    return check_mask(image, str(path))


def decode_array(content: bytes, name: str) -> np.ndarray:
    """An array out of a ``.npy`` file.

    Args:
        content: of the file.
        name: of the file, for the error.

    Raises:
        ValueError: it is none, is cut off, or holds Python objects.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except NO_ARRAY as error:
        raise ValueError(f'{name} is no array of numpy, or is cut off: {error}') from error


def _decode_code(content: bytes, name: str) -> np.ndarray:
    """The mask of a run-length code in JSON."""
    try:
        code = json.loads(content)
        if not isinstance(code, dict) or not {'size', 'counts'} <= code.keys():
            raise ValueError('expected {"size": [H, W], "counts": ...}')
        return decode_mask(code)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{name} holds no run-length code: {error}') from error


def _gray(image: np.ndarray, name: str) -> np.ndarray:
    """The one channel of a gray picture that is stored as color."""
    gray, color, alpha = image[..., 0], image[..., 1:3], image[..., 3:]
    if (color != gray[..., None]).any():
        raise ValueError(f'{name} is colored: a mask is gray, from 0 to 255 (of a class map: '
                         '255 where it holds the class, else 0)')
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise ValueError(f'{name} is transparent in parts: a mask is gray without alpha')
    return gray


def check_mask(mask: np.ndarray, name: str = 'the mask') -> np.ndarray:
    """An array as float32 ``[H, W]`` in ``0 .. 1``.

    8-bit arrays with values below one half, but none above it except 255, are not taken: those
    are the numbers of classes, and 255 is what a class map ignores. (A soft mask has an edge, with
    values on both sides of one half.)

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
        values, = np.nonzero(np.bincount(mask.ravel(), minlength=256))
        if ((values > 0) & (values < 128)).any() and not ((values > 127) & (values < 255)).any():
            shown = ', '.join(map(str, values[:5])) + (' ...' if len(values) > 5 else '')
            raise ValueError(
                f'{name} goes from {values[0]} to {values[-1]} ({shown}), as numbers of classes '
                'do: an 8-bit mask goes from 0 to 255, and more than 127 is foreground')
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
