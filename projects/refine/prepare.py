r"""Objects, plants and scenes as pairs of image and mask, for training a small refiner.

    python projects/refine/prepare.py --out work_dirs/refine

Reads `coco128` and `rgbweed` below MMSPARSE_DATA. Writes `train/`, whose outlines are all true to
the pixel (COCO's objects on other images, squares of 27 field photographs, things of the built-in
scenes), and, in BIG's layout, with spoiled masks, `objects/` (crops around objects of held-out
images, by COCO's polygons), `pasted/` (the same objects and spoiled masks, on other images),
`fields/` (three photographs of 3264x2448) and `scenes/` (things of scenes held out).
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

from mmsparse.datasets.scenes import render_instances, render_scene
from mmsparse.datasets.transforms.mask_refine import perturb_mask

HELD_OUT = 5  # every fifth image of COCO
FIELDS = 10  # every tenth field photograph, the large ones
SQUARE = 136
SIDES = (128, 256)  # of an object to train on, at most: a crop sees most of it, or an edge
MIN_AREA = 48**2
BACKGROUNDS = 3  # other images that an object to train on is pasted on, at each side
SCENES = dict(train=60, scenes=12)
SCENE_SIZE = dict(train=(512, 1024), scenes=(1024, 2048))


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    return parser.parse_args()


def coco_objects(folder: Path) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """Number of the image, name, crop and mask of every object that is large enough."""
    coco = COCO(str(folder / 'annotations' / 'instances_train2017.json'))
    for number, key in enumerate(sorted(coco.imgs)):
        image = cv2.imread(str(folder / 'train2017' / coco.imgs[key]['file_name']))
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=key, iscrowd=False)):
            mask = coco.annToMask(annotation).astype(bool)
            if mask.sum() < MIN_AREA:
                continue
            part = around(mask)
            yield number, f'coco_{annotation["id"]}', image[part], mask[part]


def scene_objects(kind: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, crop and mask of every thing of the scenes that is large enough."""
    for index in range(SCENES[kind]):
        scene = (index, SCENE_SIZE[kind], list(SCENES).index(kind))
        image, (numbers, classes) = render_scene(*scene)[0], render_instances(*scene)
        for thing in range(1, len(classes) + 1):
            mask = numbers == thing
            if mask.sum() >= MIN_AREA // 2:
                part = around(mask)
                yield f'scene_{index}_{thing}', image[part], mask[part]


def around(mask: np.ndarray) -> tuple[slice, slice]:
    """The box around a mask, with room for a sixth of it at each side."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    y, x = (bottom - top) // 6, (right - left) // 6
    return np.s_[max(top - y, 0):bottom + y, max(left - x, 0):right + x]


def turned(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The mask of plants, or its half turn, whichever is greener.

    The labels of rgbweed are upside down against its photographs.
    """
    blue, green, red = image.astype(np.int16).transpose(2, 0, 1)
    excess = 2 * green - blue - red
    return max((mask, mask[::-1, ::-1]), key=lambda m: excess[m].mean() if m.any() else 0)


def pasted(image: np.ndarray, mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The object on another image, with an edge as soft as a photograph's."""
    share = cv2.blur(mask.astype(np.float32), (3, 3))[..., None]
    return (share * image + (1 - share) * cv2.resize(other, mask.shape[::-1])).astype(np.uint8)


def spoiled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask as a coarse one, 80 to 100 % of it right, by IoU."""
    return perturb_mask(mask.astype(np.uint8) * 255, rng.uniform(0.8, 1), rng)


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray,
          coarse: np.ndarray | None = None) -> None:
    """One pair, with a coarse mask in BIG's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = dict(im=image, gt=mask, seg=coarse) if coarse is not None else dict(im=image, gt=mask)
    for kind, picture in kinds.items():
        if picture.dtype == bool:
            picture = picture.astype(np.uint8) * 255
        target = (folder / f'{name}_{kind}.png' if coarse is not None else
                  folder / kind / f'{name}.{"jpg" if kind == "im" else "png"}')
        target.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(target), picture)


def main() -> None:
    """Write the five sets."""
    args = parse_args()
    data = Path(os.environ.get('MMSPARSE_DATA', 'data'))
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(('train', 'objects', 'pasted', 'fields', 'scenes'), 0)

    def keep(folder: str, name: str, image: np.ndarray, mask: np.ndarray,
             coarse: np.ndarray | None = None) -> None:
        counts[folder] += 1
        write(args.out / folder, name, image, mask, coarse)

    backgrounds = sorted((data / 'coco128' / 'train2017').glob('*.jpg'))
    train_on = [file for number, file in enumerate(backgrounds) if number % HELD_OUT]
    for number, name, image, mask in coco_objects(data / 'coco128'):
        if number % HELD_OUT:
            for side in SIDES:
                shrink = min(side / max(mask.shape), 1)
                size = tuple(max(round(n * shrink), 1) for n in mask.shape[::-1])
                thing, outline = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (
                    image, mask.astype(np.uint8) * 255))
                for copy, other in enumerate(rng.choice(train_on, BACKGROUNDS, replace=False)):
                    keep('train', f'{name}_{side}_{copy}',
                         pasted(thing, outline > 127, cv2.imread(str(other))), outline > 127)
        else:
            coarse = spoiled(mask, rng)
            other = cv2.imread(str(backgrounds[number - 1]))  # of the first the last
            for folder, picture in dict(objects=image, pasted=pasted(image, mask, other)).items():
                keep(folder, name, picture, mask, coarse)
    for name, image, mask in scene_objects('train'):
        keep('train', name, image, mask)
    for name, image, mask in scene_objects('scenes'):
        keep('scenes', name, image, mask, spoiled(mask, rng))
    for number, file in enumerate(sorted((data / 'rgbweed' / 'images').glob('*.jpg'))):
        image = cv2.imread(str(file))
        mask = cv2.imread(str(data / 'rgbweed' / 'labels' / f'{file.stem}.png'),
                          cv2.IMREAD_GRAYSCALE) > 0
        mask = turned(mask, image)
        height, width = mask.shape
        if number % FIELDS == 0:
            keep('fields', file.stem, image, mask, spoiled(mask, rng))
            continue
        for top in range(0, height - SQUARE + 1, SQUARE):
            for left in range(0, width - SQUARE + 1, SQUARE):
                part = np.s_[top:top + SQUARE, left:left + SQUARE]
                if 0.15 < mask[part].mean() < 0.85:
                    keep('train', f'{file.stem}_{top}_{left}', image[part], mask[part])
    print(', '.join(f'{count} in {name}/' for name, count in counts.items()))


if __name__ == '__main__':
    main()
