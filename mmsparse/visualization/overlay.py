"""Pictures under the colors and names of what was found in them: arrays in, arrays out.

The stock visualizers draw through matplotlib, which resamples the picture: what they show is up to
a pixel off. These draw on the pixels.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mmsparse.rle import Patch

from .panels import paint_classes

_FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, DARK = (255, 255, 255), (30, 30, 30)


def paint_over(image: np.ndarray,
               classes: np.ndarray,
               names: Sequence[str],
               palette: Sequence[Sequence[int]],
               alpha: float = 0.5) -> np.ndarray:
    """Mix a picture with the colors of its classes, and name each class once.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        classes: class numbers ``[H, W]``; others than the names' keep the picture's color.
        names: of the classes.
        palette: their RGB colors.
        alpha: share of the color.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    mixed = cv2.addWeighted(image, 1 - alpha, paint_classes(classes, palette), alpha, 0)
    known = (classes >= 0) & (classes < len(names))
    mixed[~known] = image[~known]
    for label in np.unique(classes[known]).tolist():
        _name(mixed, names[label], _middle(classes == label))
    return mixed


class Shape(NamedTuple):
    """One thing to draw.

    Attributes:
        where: its mask, or ``None`` for its box alone.
        box: left, top, width, height in pixels.
        text: its name.
        color: RGB.
    """

    where: Patch | None
    box: Sequence[float]
    text: str
    color: Sequence[int]


def paint_shapes(image: np.ndarray, shapes: Iterable[Shape], alpha: float = 0.5) -> np.ndarray:
    """Mix a picture with the colors of objects, outline and name them; later ones lie on top.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        shapes: masks with a white outline; those without a mask as boxes.
        alpha: share of the color.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    drawn = image.copy()
    thickness = max(round(_scale(image)), 1)
    names = []
    for where, box, text, rgb in shapes:
        color = tuple(rgb)[::-1]
        if where is None:
            left, top, width, height = box
            cv2.rectangle(drawn, (round(left), round(top)),
                          (round(left + width), round(top + height)), color, 2 * thickness)
            names.append((text, (round(left + width / 2), round(top + height / 2))))
            continue
        mask = where.mask
        window = drawn[where.top:where.top + mask.shape[0], where.left:where.left + mask.shape[1]]
        window[mask] = np.rint((1 - alpha) * window[mask] + alpha * np.array(color))
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE,
                                      offset=(where.left, where.top))
        cv2.drawContours(drawn, outline, -1, WHITE, thickness)
        x, y = _middle(mask)
        names.append((text, (x + where.left, y + where.top)))
    for text, middle in names:
        _name(drawn, text, middle)
    return drawn


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """x and y of the pixel whose way out of a mask is longest; its border is an edge too."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    _, _, _, (x, y) = cv2.minMaxLoc(distance)
    return x - 1, y - 1


def _scale(picture: np.ndarray) -> float:
    """Size of letters and lines."""
    return max(min(picture.shape[:2]) / 1000, 0.4)


def _name(picture: np.ndarray, text: str, center: tuple[int, int]) -> None:
    """Write a name around a point, white with a dark rim, within the picture if it has room."""
    scale = _scale(picture)
    thickness = max(round(scale), 1)
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    x = max(min(center[0] - width // 2, picture.shape[1] - width), 0)
    y = max(min(center[1] + height // 2, picture.shape[0] - 1), height)
    for color, extra in ((DARK, 2 * thickness), (WHITE, 0)):
        cv2.putText(picture, text, (x, y), _FONT, scale, color, thickness + extra, cv2.LINE_AA)
