"""Resizing that keeps image and labels on each other. Letters: ``H, W`` size, ``h, w`` new size."""
from __future__ import annotations

import numpy as np
from PIL import Image


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic resizing that is antialiased where the image shrinks, which OpenCV's is not.

    Args:
        image: uint8 or float32 ``[H, W, C]``.
        size: ``(h, w)`` of the result.

    Raises:
        TypeError: the image is of another type.
    """
    if image.dtype not in (np.uint8, np.float32):
        raise TypeError(f'an image to resize must be uint8 or float32, got {image.dtype}')
    return np.stack([_resize(channel, size, Image.Resampling.BICUBIC)
                     for channel in np.moveaxis(image, -1, 0)], -1)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbor resizing that leaves labels where the image is.

    A pixel takes the one that its center falls into. OpenCV's ``INTER_NEAREST`` takes the one that
    its upper left corner falls into, which moves labels by half a pixel of the result.

    Args:
        labels: uint8, int32 or float32 ``[H, W]``.
        size: ``(h, w)`` of the result.
    """
    return _resize(labels, size, Image.Resampling.NEAREST)


def _resize(plane: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Pillow's resizing of ``[H, W]``, in an array that can be written to."""
    return np.array(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], method))
