"""What stands in a street: functions that draw one thing each onto a :class:`Canvas`.

Lengths are metres: ``x`` to the right of the camera, ``y`` above the road, ``z`` ahead. Colors are
BGR. Every class has colors of its own, varied, textured and lit, so that a network trained for
minutes learns it wherever it can see it: what a low resolution loses is then visible as such.
"""
from __future__ import annotations

import numpy as np

from .scene_canvas import Canvas

CLASSES = ('road', 'sidewalk', 'building', 'vegetation', 'sky', 'pole', 'traffic sign',
           'traffic light', 'lane mark', 'car', 'pedestrian')
(ROAD, SIDEWALK, BUILDING, VEGETATION, SKY, POLE, SIGN, LIGHT, LANE, CAR,
 PEDESTRIAN) = range(len(CLASSES))
# What can be counted: the functions that draw them tell one from the next.
OBJECTS = (SIGN, LIGHT, CAR, PEDESTRIAN)


def gray(rng: np.random.Generator, low: float, high: float, tint: float = 10) -> np.ndarray:
    """A random gray with a slight tint."""
    return np.clip(rng.uniform(low, high) + rng.uniform(-tint, tint, 3), 0, 255)


def steel(rng: np.random.Generator) -> np.ndarray:
    """The color of poles: nearly black."""
    return gray(rng, 15, 40, 4)


def building(canvas: Canvas, rng: np.random.Generator, side: int, x: float, z0: float,
             z1: float, height: float) -> None:
    """A house along the road: the wall towards it, the wall towards the camera, windows, shops.

    Args:
        side: -1 left, 1 right of the road.
        x: distance of the wall from the middle of the road.
        z0, z1: near and far end.
    """
    walls = ([60, 80, 150], [110, 160, 200], [80, 130, 180])  # brick, plaster, sandstone
    color = np.clip(walls[rng.integers(3)] + gray(rng, -25, 30), 20, 230)
    depth, far = rng.uniform(8, 14), side * x
    outer = far + side * depth
    window = np.array([90, 110, 130]) * rng.uniform(.6, 1)
    side_wall = canvas.material(BUILDING, color, distance=z0, stain=0.06)
    front = canvas.material(BUILDING, color * rng.uniform(0.7, 1.15), distance=z0, stain=0.06)
    glass = canvas.material(BUILDING, window, distance=z0, grain=0.03, stain=0.25)
    canvas.polygons(side_wall, [quad_along(far, z0, z1, 0, height)])
    canvas.polygons(front, [quad_facing(far, outer, z0, 0, height)])
    floor = rng.uniform(2.8, 3.6)
    floors = np.arange(floor, height - 2.2, floor).tolist()
    shops = canvas.material(BUILDING, np.array([40, 60, 120]) + gray(rng, -20, 40), distance=z0)
    if rng.random() < 0.35:
        canvas.polygons(shops, [quad_along(far, z0 + .5, z1 - .5, 2.6, 3.1)])
    width, step = rng.uniform(0.8, 1.6), rng.uniform(2.0, 3.2)
    along = np.arange(z0 + 0.6, z1 - width, step).tolist()
    canvas.polygons(glass, [quad_along(far, z, min(z + width, z1), y, y + floor * .55)
                            for y in floors for z in along])
    inside = np.arange(0.8, depth - width, step).tolist()
    canvas.polygons(glass, [quad_facing(far + side * a, far + side * (a + width), z0, y,
                                        y + floor * .55) for y in floors for a in inside])


def quad_along(x: float, z0: float, z1: float, y0: float, y1: float) -> np.ndarray:
    """Corners ``[4, 3]`` of an upright rectangle along the road."""
    return np.array([[x, y0, z0], [x, y1, z0], [x, y1, z1], [x, y0, z1]])


def quad_facing(x0: float, x1: float, z: float, y0: float, y1: float) -> np.ndarray:
    """Corners ``[4, 3]`` of an upright rectangle that faces the camera."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def quad_ground(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Corners ``[4, 3]`` of a rectangle on the ground."""
    return np.array([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]])


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A thin trunk and a crown of overlapping discs in three greens."""
    height = rng.uniform(4.5, 9)
    trunk = canvas.material(VEGETATION, [45, 60, 75] + gray(rng, -15, 25), distance=z, grain=.15)
    canvas.box(trunk, x, 0, z, rng.uniform(.18, .4), height * .6)
    green = np.array([rng.uniform(20, 60), rng.uniform(80, 140), rng.uniform(40, 110)])
    radius = rng.uniform(1.2, 2.2)
    for shade in (.6, .8, 1.0):
        leaves = canvas.material(VEGETATION, green * shade, distance=z, grain=.2, stain=.1)
        for _ in range(24):
            dx, dy = rng.normal(0, radius * .55, 2)
            canvas.disc(leaves, x + dx, height * .72 + dy, z, radius * rng.uniform(.06, .4))


def lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A street lamp: a tall pole, an arm over the road, a lamp at its end."""
    metal = canvas.material(POLE, steel(rng), distance=z)
    height, reach = rng.uniform(6, 9), -np.sign(x) * rng.uniform(1, 2.2)
    canvas.box(metal, x, 0, z, rng.uniform(.18, .3), height)
    canvas.box(metal, x + reach / 2, height, z, abs(reach), .14)
    canvas.box(metal, x + reach, height - .1, z, .5, .18)


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """One or two traffic signs on a thin pole: disc, triangle or board, rimmed, with a glyph."""
    metal = canvas.material(POLE, steel(rng), distance=z)
    top = rng.uniform(2.2, 3.2)
    canvas.box(metal, x, 0, z, rng.uniform(.12, .18), top)
    rims = ([200, 90, 10], [40, 40, 200])
    for k in range(rng.integers(1, 3)):
        canvas.begin_thing()
        y, r = top - .95 * k, rng.uniform(.32, .45)
        rim = canvas.material(SIGN, rims[rng.integers(2)] + gray(rng, -15, 20), distance=z)
        field = canvas.material(SIGN, gray(rng, 170, 235), distance=z)
        glyph = canvas.material(SIGN, gray(rng, 15, 60), distance=z)
        kind = rng.integers(3)
        if kind == 0:
            canvas.disc(rim, x, y, z, r)
            canvas.disc(field, x, y, z, r * .68)
        elif kind == 1:
            for material, size in ((rim, r), (field, r * .6)):
                canvas.polygons(material, [np.array(
                    [[x - size, y - size * .7, z], [x + size, y - size * .7, z],
                     [x, y + size, z]])])
        else:
            canvas.box(rim, x, y - r, z, r * 2.4, r * 1.7)
        canvas.box(glyph, x, y - r * .35, z, r * .3, r * .7)


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A dark box with three lamps, one of them lit, on a pole."""
    canvas.begin_thing()
    metal = canvas.material(POLE, steel(rng), distance=z)
    housing = canvas.material(LIGHT, np.array([20, 165, 200]) * rng.uniform(.8, 1), distance=z)
    top = rng.uniform(2.6, 3.6)
    canvas.box(metal, x, 0, z, rng.uniform(.16, .24), top)
    canvas.box(housing, x, top - .9, z, .36, 1.0)
    lit = rng.integers(3)
    for k, color in enumerate(([40, 40, 230], [40, 180, 240], [80, 220, 60])):
        lamp_color = np.array(color) if k == lit else np.array(color) * .3
        lens = canvas.material(LIGHT, lamp_color, distance=z)
        canvas.disc(lens, x, top - .08 - .3 * k, z, .11)


def car(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A car from behind or from the front, with a dark patch of road below it."""
    canvas.begin_thing()
    width, height = rng.uniform(1.65, 1.95), rng.uniform(1.35, 1.75)
    paint = np.array([150, 120, 15]) * rng.uniform(.6, 1.5)  # teal
    body = canvas.material(CAR, paint, distance=z)
    roof = canvas.material(CAR, paint * .85, distance=z)
    glass = canvas.material(CAR, np.array([90, 70, 30]) * rng.uniform(.7, 1), distance=z)
    dark = canvas.material(CAR, [60, 45, 10], distance=z)
    lamps = canvas.material(CAR, [40, 40, 200] if x > 0 else [200, 230, 235], distance=z)
    shadow = canvas.material(ROAD, gray(rng, 25, 45), distance=z)
    canvas.polygons(shadow, [quad_ground(x - width * .55, x + width * .55, z, z + 1.2)])
    for dx in (-.36, .36):
        canvas.box(dark, x + dx * width, 0, z, .22, .4)
    canvas.box(body, x, .22, z, width, height * .5)
    y = .22 + height * .5
    for material, inset, top in ((roof, .08, height), (glass, .13, height * .94)):
        canvas.polygons(material, [np.array(
            [[x - width * (.5 - inset), y, z], [x + width * (.5 - inset), y, z],
             [x + width * (.4 - inset), top, z], [x - width * (.4 - inset), top, z]])])
    for dx in (-.4, .4):
        canvas.box(lamps, x + dx * width, .22 + height * .32, z, .22, .16)
    canvas.box(dark, x, .25, z, width * .5, .16)


def pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Two legs, a torso with an arm, a head."""
    canvas.begin_thing()
    height, stride = rng.uniform(1.5, 1.9), rng.uniform(.05, .22)
    skin = canvas.material(PEDESTRIAN, np.array([150, 130, 220]) * rng.uniform(.8, 1.1), distance=z)
    legs = canvas.material(PEDESTRIAN, np.array([110, 30, 80]) * rng.uniform(.7, 1), distance=z)
    purple = np.array([180, 50, 190]) * rng.uniform(.6, 1.2)
    coat = canvas.material(PEDESTRIAN, purple, distance=z)
    for dx in (-stride, stride):
        canvas.box(legs, x + dx, 0, z, .16, height * .5)
    canvas.box(coat, x, height * .45, z, .42, height * .4)
    canvas.box(coat, x + rng.choice([-.28, .28]), height * .45, z, .12, height * .33)
    canvas.disc(skin, x, height * .92, z, .12)
