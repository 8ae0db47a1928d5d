"""A picture under the colors and names of its classes: arrays in, array out."""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .panels import paint_classes

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def paint_over(image: np.ndarray,
               classes: np.ndarray,
               names: Sequence[str],
               palette: Sequence[Sequence[int]],
               alpha: float = 0.5) -> np.ndarray:
    """Mix a picture with the colors of its classes, and name each class once.

    The name stands within the class, where its edge is farthest. (mmseg's visualizer looks for such
    places in Python lists of pixels, which takes minutes for a picture of 8 megapixels.)

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        classes: class numbers ``[H, W]``; others than the names' keep the picture's color.
        names: of the classes.
        palette: their RGB colors.
        alpha: share of the color.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    colors = paint_classes(classes, palette)
    mixed = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    known = (classes >= 0) & (classes < len(names))
    mixed[~known] = image[~known]
    scale = max(min(image.shape[:2]) / 1000, 0.4)
    for label in np.unique(classes[known]).tolist():
        inside = np.pad(classes == label, 1).astype(np.uint8)  # the picture's border is an edge too
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        _, _, _, (x, y) = cv2.minMaxLoc(distance)
        _name(mixed, names[label], (x - 1, y - 1), scale)
    return mixed


def _name(picture: np.ndarray, text: str, center: tuple[int, int], scale: float) -> None:
    """Write a name around a point, white with a dark rim, within the picture if it has room."""
    thickness = max(round(scale), 1)
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    x = max(min(center[0] - width // 2, picture.shape[1] - width), 0)
    y = max(min(center[1] + height // 2, picture.shape[0] - 1), height)
    for color, extra in (((30, 30, 30), 2 * thickness), ((255, 255, 255), 0)):
        cv2.putText(picture, text, (x, y), _FONT, scale, color, thickness + extra, cv2.LINE_AA)
