"""Built-in data: procedural street-like scenes of any size, made on the fly.

A scene is what semantic segmentation at high resolution is about: large easy regions (sky, road,
buildings), and thin or distant things that a smaller picture loses (poles, signs, traffic lights,
lane marks, pedestrians). Nothing is downloaded or stored.

* **Deterministic** by ``(seed, index)``: same versions of numpy and OpenCV, same picture. Layout
  is drawn in metres and does not depend on the size; only texture and noise do.
* **Pixel-exact labels**: nothing is anti-aliased or blurred, see :mod:`.scene_canvas`.
* **Learnable in minutes**: every class has colors of its own, under texture, uneven light, haze and
  noise. What is hard about a scene is its resolution.

Letters: ``H, W`` size in pixels.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from . import scene_objects as things
from .scene_canvas import Camera, Canvas

PALETTE = [[128, 64, 128], [244, 35, 232], [90, 90, 90], [107, 142, 35], [70, 130, 180],
           [255, 165, 0], [255, 235, 0], [0, 255, 160], [255, 255, 255], [0, 0, 200],
           [220, 20, 60]]
# What a half-size picture loses; the demo reports their mean IoU.
SMALL_CLASSES = ('pole', 'traffic sign', 'traffic light', 'lane mark', 'pedestrian')

Job = tuple[float, Callable[[], None]]  # distance in metres, drawing
FAR = 260.0  # metres; where the street ends


def render_scene(index: int, size: tuple[int, int], seed: int = 0
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Picture and label of one scene.

    Args:
        index: number of the scene, ``>= 0``.
        size: ``(H, W)`` in pixels, each ``>= 1``.
        seed: which series of scenes, ``>= 0``; different seeds share no scene.

    Returns:
        Image uint8 BGR ``[H, W, 3]`` and label uint8 ``[H, W]``, numbers as in
        ``scene_objects.CLASSES``.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument is not an integer.
    """
    canvas, rng = draw_scene(index, size, seed)
    gain = rng.uniform(.8, 1.1) * rng.uniform(.95, 1.05, 3)
    return canvas.picture(rng, gain=gain, noise=rng.uniform(3, 6)), canvas.labels()


def render_label(index: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """The label of :func:`render_scene` alone, in a quarter of the time."""
    return draw_scene(index, size, seed)[0].labels()


def render_instances(index: int, size: tuple[int, int], seed: int = 0
                     ) -> tuple[np.ndarray, np.ndarray]:
    """The cars, pedestrians, traffic signs and traffic lights of :func:`render_scene`.

    Returns:
        Number of every pixel's object, from 1 (the farthest), 0 where there is none, uint16
        ``[H, W]``; and the classes of objects 1, 2, ..., uint8 ``[N]``, numbers as in
        ``scene_objects.CLASSES``. What is hidden is no part of an object.
    """
    return draw_scene(index, size, seed)[0].instances(things.OBJECTS)


def draw_scene(index: int, size: tuple[int, int], seed: int = 0
               ) -> tuple[Canvas, np.random.Generator]:
    """The material map of a scene, and the generator that is to texture and light it.

    Arguments and errors as :func:`render_scene`.
    """
    height, width = check_scene(index, size, seed)
    # Two generators: how much texture is drawn must not move what stands where.
    layout, look = (np.random.default_rng([seed, index, k]) for k in range(2))
    rng = layout
    haze = things.gray(rng, 170, 225)
    camera = Camera(focal=1.1 * height, x0=width * rng.uniform(.42, .58),
                    y0=height * rng.uniform(.42, .5), eye=rng.uniform(1.4, 1.9))
    canvas = Canvas((height, width), camera=camera, haze=haze,
                    visibility=rng.uniform(250, 600))
    half_road, walk = rng.uniform(3.6, 6.5), rng.uniform(2.0, 4.0)
    _sky_and_ground(canvas, rng, half_road, walk)
    jobs: list[Job] = []
    for side in (-1, 1):
        jobs += _row_of_houses(canvas, rng, side, half_road + walk)
        jobs += _street_furniture(canvas, rng, side, half_road, walk)
    jobs += _traffic(canvas, rng, half_road, walk)
    # Painter's algorithm: far things first.
    for _, draw in sorted(jobs, key=lambda job: -job[0]):
        draw()
    return canvas, look


def check_scene(index: int, size: tuple[int, int], seed: int) -> tuple[int, int]:
    """``(H, W)`` as integers if ``(index, size, seed)`` names a scene; errors as there."""
    for name, value in (('index', index), ('seed', seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f'{name} of a scene must be an integer, got {value!r}')
        if value < 0:
            raise ValueError(f'{name} of a scene must be >= 0, got {value}')
    if (not isinstance(size, (tuple, list)) or len(size) != 2
            or not all(isinstance(s, (int, np.integer)) and s >= 1 for s in size)):
        raise ValueError('size of a scene must be (H, W), two positive integers in pixels, got '
                         f'{size!r}')
    return int(size[0]), int(size[1])


def _sky_and_ground(canvas: Canvas, rng: np.random.Generator, half_road: float,
                    walk: float) -> None:
    """Everything behind and below: sky, skyline, verges, sidewalks, road and its marks."""
    blue = rng.uniform(0, 1)
    sky = canvas.material(things.SKY, [225 + 15 * blue, 215 - 10 * blue, 205 - 50 * blue],
                          grain=.01, stain=.04)
    canvas.map[:] = sky
    for _ in range(8):  # a skyline at the end of the street
        x, z = rng.uniform(-160, 160), rng.uniform(160, FAR)
        if rng.random() < .5:
            wall = canvas.material(things.BUILDING, things.gray(rng, 60, 170), distance=z)
            canvas.box(wall, x, 0, z, rng.uniform(15, 50), rng.uniform(10, 35))
        else:
            wood = canvas.material(things.VEGETATION, [50, 95, 70], distance=z, grain=.2)
            for _ in range(12):
                canvas.disc(wood, x + rng.normal(0, 12), 4, z, rng.uniform(3, 8))
    verge = canvas.material(things.VEGETATION, [40, 110, 90], grain=.16, stain=.15)
    paving = canvas.material(things.SIDEWALK, [20, 0, 30] + things.gray(rng, 125, 170), grain=.08,
                             stain=.06)
    kerb = canvas.material(things.SIDEWALK, [25, 0, 35] + things.gray(rng, 135, 180), grain=.05)
    tar = things.gray(rng, 55, 105, 5)
    asphalt = canvas.material(things.ROAD, tar, grain=.12, stain=.09)
    patch = canvas.material(things.ROAD, tar * rng.uniform(.75, .9), grain=.12)
    pale = canvas.material(things.ROAD, tar * rng.uniform(1.1, 1.25), grain=.12)
    horizon = canvas.camera.project(np.array([0., 0., 1e4]))[1]
    canvas.box_px(verge, 0, horizon, canvas.width, canvas.height)
    near, road = .8, half_road
    canvas.polygons(paving, [things.quad_ground(-road - walk, road + walk, near, FAR)])
    canvas.polygons(kerb, [things.quad_ground(-road - .25, road + .25, near, FAR)])
    canvas.polygons(asphalt, [things.quad_ground(-road, road, near, FAR)])
    for material in (patch, pale):  # repairs, as bright or dark as worn paint and shadows
        for _ in range(5):
            x, z = rng.uniform(-road, road), rng.uniform(5, 60)
            w, d = min(rng.uniform(.3, 1.8), road - abs(x)), rng.uniform(.5, 5)
            canvas.polygons(material, [things.quad_ground(x - w, x + w, z, z + d)])
    _lane_marks(canvas, rng, road)


def _lane_marks(canvas: Canvas, rng: np.random.Generator, road: float) -> None:
    """Middle and edge lines, dashed or not, and perhaps a zebra crossing."""
    white = rng.uniform(175, 235)
    paint = canvas.material(things.LANE, [white * .75, white * .95, white] if rng.random() < .25
                            else things.gray(rng, white - 10, white + 10), grain=.12, stain=.12)
    w = rng.uniform(.08, .13)
    dash, gap = rng.uniform(2.5, 4), rng.uniform(3, 7)
    starts = np.arange(rng.uniform(1, 5), 100, dash + gap).tolist()
    middle = rng.uniform(-.2, .2)
    canvas.polygons(paint, [things.quad_ground(middle - w, middle + w, z, z + dash)
                            for z in starts])
    if rng.random() < .7:
        canvas.polygons(paint, [things.quad_ground(s * (road - .35) - w, s * (road - .35) + w,
                                                   .8, 100) for s in (-1, 1)])
    if rng.random() < .6:
        z, n = rng.uniform(9, 35), int(road)
        canvas.polygons(paint, [things.quad_ground(x - .25, x + .25, z, z + 3.)
                                for x in np.linspace(-road + .7, road - .7, 2 * n).tolist()])


def _row_of_houses(canvas: Canvas, rng: np.random.Generator, side: int, edge: float) -> list[Job]:
    """Houses with gaps along one side, from the camera into the distance."""
    jobs: list[Job] = []
    setback, z = rng.uniform(0, 4), rng.uniform(2.5, 12)
    while z < 200:
        length = rng.uniform(8, 26)
        if rng.random() < .78:
            # Sorted by the far end: what stands in front of its wall is drawn after it.
            jobs.append((z + length, partial(things.building, canvas, rng, side, edge + setback,
                                             z, z + length, rng.uniform(5, 20))))
        z += length + (rng.uniform(2, 12) if rng.random() < .35 else 0)
    return jobs


def _street_furniture(canvas: Canvas, rng: np.random.Generator, side: int, half_road: float,
                      walk: float) -> list[Job]:
    """Trees, lamps, signs and traffic lights along one kerb."""
    jobs: list[Job] = []
    kerb = half_road + .5
    for z in np.arange(rng.uniform(6, 25), 110, rng.uniform(20, 32)).tolist():
        jobs.append((z, partial(things.lamp, canvas, rng, side * kerb, z)))
    if rng.random() < .75:
        for z in np.arange(rng.uniform(7, 20), 110, rng.uniform(9, 25)).tolist():
            x, z = side * (kerb + rng.uniform(0, walk)), z + rng.uniform(-2, 2)
            jobs.append((z, partial(things.tree, canvas, rng, x, z)))
    for z in _distances(rng, (3, 7), 8, 70):
        jobs.append((z, partial(things.sign, canvas, rng, side * (kerb + rng.uniform(-.2, .8)), z)))
    for z in _distances(rng, (1, 4), 9, 60):
        jobs.append((z, partial(things.traffic_light, canvas, rng,
                                side * (kerb + rng.uniform(-.2, .3)), z)))
    return jobs


def _traffic(canvas: Canvas, rng: np.random.Generator, half_road: float, walk: float
             ) -> list[Job]:
    """Cars on both lanes and at the kerbs, people on the sidewalks and a few on the road."""
    jobs: list[Job] = []
    for z in _distances(rng, (4, 12), 9, 100):
        lane = rng.choice([-.5, .5, -1, 1])
        x = lane * half_road * .95 - np.sign(lane) * (1.0 if abs(lane) == 1 else 0)
        jobs.append((z, partial(things.car, canvas, rng, x, z)))
    for z in _distances(rng, (7, 18), 8, 65):
        side = rng.choice([-1, 1])
        x = (side * (half_road + rng.uniform(.3, walk)) if rng.random() < .85
             else rng.uniform(-half_road, half_road))
        jobs.append((z, partial(things.pedestrian, canvas, rng, x, z)))
    return jobs


def _distances(rng: np.random.Generator, count: tuple[int, int], near: float, far: float
               ) -> list[float]:
    """``count[0]`` to ``count[1] - 1`` distances in metres, uniform in their logarithm."""
    return np.exp(rng.uniform(np.log(near), np.log(far), rng.integers(*count))).tolist()
