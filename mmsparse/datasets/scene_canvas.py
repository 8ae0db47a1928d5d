"""The canvas scenes are drawn on: one map of materials decides picture and label together.

Shapes write a material number into an integer map, without anti-aliasing. A material has a class,
a color and a texture, so a pixel's color and label come from the same surface by construction: no
pixel is mixed from two classes and no boundary is off by one.

Letters: ``H, W`` size in pixels, ``M`` materials.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Color = Sequence[float] | np.ndarray  # BGR

# cv2 takes fixed-point coordinates; 4 bits are 1/16 pixel.
_SHIFT = 4


@dataclass(frozen=True)
class Camera:
    """Pinhole camera at height ``eye`` metres over a flat road, looking straight ahead.

    Attributes:
        focal: focal length in pixels.
        x0, y0: vanishing point in pixels.
        eye: height above the road in metres.
    """

    focal: float
    x0: float
    y0: float
    eye: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels ``[..., 2]`` (x, y) of points ``[..., 3]`` in metres (right, up, ahead)."""
        points = np.asarray(points, dtype=np.float64)
        scale = self.focal / points[..., 2]
        x = self.x0 + points[..., 0] * scale
        y = self.y0 + (self.eye - points[..., 1]) * scale
        return np.stack([x, y], axis=-1)

    def scale(self, distance: float) -> float:
        """Pixels per metre at a distance in metres."""
        return self.focal / distance


class Canvas:
    """Material map of one scene.

    Args:
        size: ``(H, W)``.
        camera: projection of the shapes given in metres.
        haze: color (BGR, 0-255) that distant surfaces fade into.
        visibility: distance in metres over which a color keeps ``1/e`` of itself.
    """

    def __init__(self,
                 size: tuple[int, int],
                 *,
                 camera: Camera,
                 haze: Color,
                 visibility: float) -> None:
        self.height, self.width = size
        self.camera = camera
        self.haze = np.asarray(haze, dtype=np.float64)
        self.visibility = visibility
        self.map = np.zeros(size, dtype=np.uint16)
        self.classes: list[int] = []
        self.colors: list[np.ndarray] = []
        self.textures: list[tuple[float, float]] = []
        self.things: list[int] = []
        self.thing = 0

    def begin_thing(self) -> None:
        """Materials from here on are those of another thing."""
        self.thing += 1

    def material(self,
                 label: int,
                 color: Color,
                 *,
                 distance: float = 0.0,
                 grain: float = 0.04,
                 stain: float = 0.04) -> int:
        """A new material.

        Args:
            label: class of every pixel of it.
            color: BGR, 0-255, before haze and light.
            distance: metres to the camera, for the haze.
            grain, stain: relative strength of its fine and its coarse texture.

        Returns:
            Its number in the map.
        """
        keep = np.exp(-distance / self.visibility)
        self.classes.append(label)
        self.colors.append(keep * np.asarray(color, dtype=np.float64) + (1 - keep) * self.haze)
        self.textures.append((grain, stain))
        self.things.append(self.thing)
        return len(self.classes) - 1

    def polygons(self, material: int, corners: Iterable[np.ndarray]) -> None:
        """Fill polygons given in metres, each ``[P, 3]`` (right, up, ahead)."""
        self.polygons_px(material, [self.camera.project(c) for c in corners])

    def polygons_px(self, material: int, corners: Iterable[np.ndarray]) -> None:
        """Fill polygons given in pixels, each ``[P, 2]`` (x, y)."""
        limit = 8 * max(self.height, self.width)  # fixed point must not overflow far outside
        fixed = [np.rint(np.clip(c, -limit, limit) * (1 << _SHIFT)).astype(np.int32)
                 for c in corners]
        if fixed:
            cv2.fillPoly(self.map, fixed, material, lineType=cv2.LINE_8, shift=_SHIFT)

    def box_px(self, material: int, x0: float, y0: float, x1: float, y1: float) -> None:
        """Fill an upright box in pixels, at least one pixel thick if it touches the canvas."""
        left, top = round(x0), round(y0)
        right, bottom = max(round(x1), left + 1), max(round(y1), top + 1)
        if right > 0 and bottom > 0:
            self.map[max(top, 0):bottom, max(left, 0):right] = material

    def box(self, material: int, x: float, y: float, z: float, width: float,
            height: float) -> None:
        """Fill a box that faces the camera: bottom center ``(x, y, z)`` and size in metres."""
        scale = self.camera.scale(z)
        px, py = self.camera.project(np.array([x, y, z]))
        half = width * scale / 2
        self.box_px(material, px - half, py - height * scale, px + half, py)

    def disc(self, material: int, x: float, y: float, z: float, radius: float) -> None:
        """Fill a disc that faces the camera: center and radius in metres."""
        px, py = self.camera.project(np.array([x, y, z]))
        r = max(round(radius * self.camera.scale(z)), 0)
        limit = 4 * max(self.height, self.width)
        if abs(px) < limit and abs(py) < limit:
            cv2.circle(self.map, (round(px), round(py)), r, material, cv2.FILLED, cv2.LINE_8)

    def labels(self) -> np.ndarray:
        """Class of every pixel, uint8 ``[H, W]``."""
        return np.asarray(self.classes, dtype=np.uint8)[self.map]

    def instances(self, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Every thing of some classes, as far as it can be seen.

        Args:
            classes: of countable things: of each thing, what is of one class is one instance.

        Returns:
            Number of every pixel's instance, from 1 in the order of drawing, 0 where there is
            none, uint16 ``[H, W]``; and the classes of instances 1, 2, ..., uint8 ``[N]``.
        """
        seen = np.bincount(self.map.ravel(), minlength=len(self.classes)) > 0
        found: dict[tuple[int, int], int] = {}
        numbers = np.zeros(len(self.classes), dtype=np.uint16)
        for material, key in enumerate(zip(self.things, self.classes, strict=True)):
            if seen[material] and key[1] in classes:
                numbers[material] = found.setdefault(key, len(found) + 1)
        return numbers[self.map], np.array([label for _, label in found], dtype=np.uint8)

    def picture(self, rng: np.random.Generator, *, gain: Color, noise: float) -> np.ndarray:
        """Color every material, add its texture, light the scene, add sensor noise.

        Args:
            rng: source of texture, light and noise.
            gain: factor per channel (exposure and white balance), BGR.
            noise: standard deviation of the sensor noise in gray levels.

        Returns:
            uint8 BGR ``[H, W, 3]``.
        """
        shape = self.height, self.width
        index = self.map.astype(np.intp)
        grain, stain = (np.asarray(t, dtype=np.float32)[index] for t in zip(*self.textures,
                                                                          strict=True))
        # One small tile repeated: drawing two million normals would take half of the time.
        tile = rng.standard_normal((256, 256), dtype=np.float32)
        light = 1 + grain * _tiled(tile, shape, rng) + stain * _smooth(rng, shape, cells=48)
        light *= np.clip(0.95 + 0.08 * _smooth(rng, shape, cells=3), 0.5, 1.4)
        colors = np.asarray(self.colors, dtype=np.float32)
        planes = []
        for channel in range(3):
            plane = (colors[:, channel] * np.float32(gain[channel]))[index]
            plane *= light
            plane += np.float32(noise) * _tiled(tile, shape, rng)
            planes.append(cv2.convertScaleAbs(np.maximum(plane, 0)))
        return cv2.merge(planes)


def _tiled(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The tile repeated over ``shape`` from a random corner."""
    n = len(tile)
    y, x = rng.integers(0, n, size=2)
    rows, columns = ((np.arange(s) + o) % n for s, o in zip(shape, (y, x), strict=True))
    return np.take(np.take(tile, columns, axis=1), rows, axis=0)


def _smooth(rng: np.random.Generator, shape: tuple[int, int], *, cells: int) -> np.ndarray:
    """Smooth noise of unit variance at its knots: ``cells`` knots along the height."""
    height, width = shape
    knots = rng.standard_normal((cells, max(2, round(cells * width / height))), dtype=np.float32)
    return cv2.resize(knots, (width, height), interpolation=cv2.INTER_LINEAR)
