r"""Objects of COCO and plants of fields as pairs of image and mask, for training a small refiner.

    python projects/refine/prepare.py --out work_dirs/refine

Reads `coco128` and `rgbweed` below MMSPARSE_DATA. Writes `train/` (crops around COCO objects,
squares of 27 field photographs) and, in BIG's layout, with spoiled masks, `objects/` (crops around
objects of held-out images), `pasted/` (the same objects and spoiled masks, on other images, so that
the outline is true to the pixel) and `fields/` (three photographs of 3264x2448).
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

from mmsparse.datasets.transforms.mask_refine import perturb_mask

HELD_OUT = 5  # every fifth image of COCO
FIELDS = 10  # every tenth field photograph, the large ones
SQUARE = 136
SIDES = (128, 256)  # of an object to train on, at most: a crop sees most of it, or an edge
MIN_AREA = 48**2


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
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            y, x = (bottom - top) // 6, (right - left) // 6  # room around the object
            part = np.s_[max(top - y, 0):bottom + y, max(left - x, 0):right + x]
            yield number, f'coco_{annotation["id"]}', image[part], mask[part]


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
    """Write the three sets."""
    args = parse_args()
    data = Path(os.environ.get('MMSPARSE_DATA', 'data'))
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(('train', 'objects', 'pasted', 'fields'), 0)
    backgrounds = sorted((data / 'coco128' / 'train2017').glob('*.jpg'))
    for number, name, image, mask in coco_objects(data / 'coco128'):
        if number % HELD_OUT:
            for side in SIDES:
                counts['train'] += 1
                shrink = min(side / max(mask.shape), 1)
                size = tuple(max(round(n * shrink), 1) for n in mask.shape[::-1])
                write(args.out / 'train', f'{name}_{side}',
                      *(cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (
                          image, mask.astype(np.uint8) * 255)))
        else:
            coarse = perturb_mask(mask.astype(np.uint8) * 255, rng.uniform(0.8, 1), rng)
            other = cv2.imread(str(backgrounds[number - 1]))  # of the first the last
            for folder, picture in dict(objects=image, pasted=pasted(image, mask, other)).items():
                counts[folder] += 1
                write(args.out / folder, name, picture, mask, coarse)
    for number, file in enumerate(sorted((data / 'rgbweed' / 'images').glob('*.jpg'))):
        image = cv2.imread(str(file))
        mask = cv2.imread(str(data / 'rgbweed' / 'labels' / f'{file.stem}.png'),
                          cv2.IMREAD_GRAYSCALE) > 0
        mask = turned(mask, image)
        height, width = mask.shape
        if number % FIELDS == 0:
            coarse = perturb_mask(mask.astype(np.uint8) * 255, rng.uniform(0.8, 1), rng)
            counts['fields'] += 1
            write(args.out / 'fields', file.stem, image, mask, coarse)
            continue
        for top in range(0, height - SQUARE + 1, SQUARE):
            for left in range(0, width - SQUARE + 1, SQUARE):
                part = np.s_[top:top + SQUARE, left:left + SQUARE]
                if 0.15 < mask[part].mean() < 0.85:
                    counts['train'] += 1
                    write(args.out / 'train', f'{file.stem}_{top}_{left}', image[part], mask[part])
    print(', '.join(f'{count} in {name}/' for name, count in counts.items()))


if __name__ == '__main__':
    main()
