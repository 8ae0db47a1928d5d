"""Pictures from files, their pixels in the order in which they are stored. ``H, W``: size.

A camera that was held sideways notes so in the file (EXIF) and stores what its sensor saw. A mask
or a label holds no such note, and mmseg reads it as stored. So pictures are read as stored too, in
training, testing and prediction: picture, label and result then have one size and one order. mmcv
and mmseg do the same where a config says ``color_type='color_ignore_orientation'``. (The tag of
a TIFF is no EXIF but part of the format: every decoder follows it, in pictures and in labels.)
"""
from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.fileio import get

# Where EXIF begins: in a JPEG, a PNG, a WebP; behind it the byte order of its numbers.
EXIF = re.compile(rb'(?:Exif\0\0|eXIf|EXIF.{4})(II\*\0|MM\0\*)', re.DOTALL)
ORIENTATION = 0x0112

# How stored pixels become what is to be seen, by the orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}

AS_STORED = ('pictures are read as stored, without the rotation that EXIF asks for: the mask or '
             'label has to lie so too')


def read_image(path: str | Path, backend_args: dict | None = None, *, upright: bool = False,
               white: float | None = None) -> np.ndarray:
    """Read a file or URL as uint8 BGR ``[H, W, 3]``; gray becomes color, alpha is dropped.

    An EXIF orientation is not followed (see above), and a warning says so.

    Args:
        path: of the file.
        backend_args: of mmengine's file backends.
        upright: follow an EXIF orientation, silently.
        white: in a picture of more than 8 bits, the value that becomes 255, as 0 stays 0; without
            it such a picture is refused. Those of 8 bits stay as they are.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no picture, is cut off, or has more than 8 bits per channel, and ``white``
            is not given or some values are beyond it.
        TypeError: ``path`` is none.
    """
    if not isinstance(path, (str, Path)):
        raise TypeError('an image is a path or a uint8 BGR array [H, W, 3], got '
                        f'{type(path).__name__}')
    content = get(str(path), backend_args=backend_args)
    image, turn = decode_color(content, str(path), upright=upright, white=white)
    if turn != 1 and not upright:
        warnings.warn(f'{path} is read as stored: its EXIF orientation, {turn}, is ignored, in '
                      'pictures, masks and results alike', stacklevel=2)
    return image


def decode_color(content: bytes, name: str, *, upright: bool, white: float | None
                 ) -> tuple[np.ndarray, int]:
    """Decode a picture file as :func:`read_image` does, without a warning.

    Args:
        content: of the file.
        name: of the file, for the error.
        upright, white: as there.

    Returns:
        The picture, and its EXIF orientation.

    Raises:
        ValueError: as there.
    """
    image = decode(content, name, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
                   | cv2.IMREAD_IGNORE_ORIENTATION)
    if image.dtype != np.uint8:
        image = to_8_bits(image, name, white)
    turn = orientation(content)
    return (np.ascontiguousarray(UPRIGHT[turn](image)) if upright else image), turn


def to_8_bits(image: np.ndarray, name: str, white: float | None) -> np.ndarray:
    """Scale values from 0 to ``white`` to 0 to 255, and round.

    Raises:
        ValueError: ``white`` is not given, or a value is outside of them.
    """
    if white is None:
        raise ValueError(f'{name} holds {image.dtype} numbers per channel; pictures have 8 bits. '
                         'Convert it, or say which of its values is white (predict has --white): '
                         'only you know it')
    low, high = image.min(), image.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f'{name} holds values from {low} to {high}; they have to be from 0 to '
                         f'white, {white:g}')
    return np.rint(image * (255 / white)).astype(np.uint8)


def decode(content: bytes, name: str, flag: int | str) -> np.ndarray:
    """Decode a picture file by OpenCV.

    Args:
        content: of the file.
        name: of the file, for the error.
        flag: as of ``mmcv.imfrombytes``.

    Raises:
        ValueError: it is no picture, cut off or too large.
    """
    try:
        image = mmcv.imfrombytes(content, flag=flag, backend='cv2') if content else None
    except cv2.error as error:  # too large: 2**30 pixels, or the memory
        raise ValueError(f'{name} cannot be decoded: {error.err or error}') from error
    if image is None:
        raise ValueError(f'{name} is no image that OpenCV can read, or is cut off')
    return image


def orientation(content: bytes) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP, 1 (as stored) to 8; 1 where it says none.

    Source: CIPA DC-008, Exif 2.32, section 4.6; TIFF 6.0, section 2.
    """
    found = EXIF.search(content)
    if found is None:
        return 1
    start, order = found.start(1), '<' if found[1] == b'II*\0' else '>'
    try:
        first, = struct.unpack_from(f'{order}I', content, start + 4)
        count, = struct.unpack_from(f'{order}H', content, start + first)
        for entry in range(start + first + 2, start + first + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f'{order}HHIH', content, entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the note itself is cut off
        pass
    return 1
