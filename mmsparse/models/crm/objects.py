"""From maps of classes to objects, from objects to crops, and back.

Sources: Cheng et al., "CascadePSP: Toward Class-Agnostic and Very High-Resolution Segmentation via
Global and Local Refinement", CVPR 2020, supplement (scene parsing); CRM, CVPR 2022. Letters:
``H, W`` size of the image, ``h, w`` size of a crop.
"""
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from mmsparse.sizes import size_of

from .refiner import CRMRefiner
from .sampling import Window, scaled

# Dilation by it joins the parts of an object that lie close to each other. The protocol's radius is
# 5 as well, but its kernel has an even width, which would move the parts by a pixel.
DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
# Sides of crops are a multiple of this where the image allows: many crops then have the same size
# and are refined together.
SIDE_MULTIPLE = 32
# Crops whose long side is shorter are enlarged to this: the network does badly on smaller inputs.
LONG_SIDE = 224
# Pixels of the crops that are refined together.
BATCH_PIXELS = 2**20


class Object(NamedTuple):
    """One object of a class.

    Attributes:
        label: the class.
        box: the smallest window that holds the object.
        mask: bool ``[*box.size]``, the object in its box.
    """

    label: int
    box: Window
    mask: np.ndarray


def box_of(rows: ArrayLike, columns: ArrayLike) -> Window:
    """The smallest window that holds an object.

    Args:
        rows: bool ``[H]``, which rows the object touches, at least one.
        columns: bool ``[W]``, which columns.
    """
    y, x = np.flatnonzero(rows), np.flatnonzero(columns)
    return Window(int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1)


def objects_of(classes: np.ndarray, min_area: int = 1024) -> Iterator[Object]:
    """The objects of a class map: per class, parts that a dilation by 5 pixels joins.

    Args:
        classes: integers ``[H, W]``.
        min_area: classes and objects of at most this many pixels are left out.
    """
    labels, areas = np.unique(classes, return_counts=True)
    for label in labels[areas > min_area].tolist():
        of_class = classes == label
        area = box_of(of_class.any(1), of_class.any(0)).grown(len(DISC), size_of(classes))
        mask = area.of(of_class)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            cv2.dilate(mask.astype(np.uint8), DISC), connectivity=8)
        for number, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
            # with a margin: erosion takes what lies beyond the array's border for foreground, and
            # would not erode an object that touches it
            region = Window(top, left, top + height, left + width).grown(len(DISC), size_of(mask))
            part = cv2.erode((region.of(parts) == number).astype(np.uint8), DISC).astype(bool)
            if part.sum() <= min_area:
                continue
            part &= region.of(mask)
            if not part.any():
                continue
            tight = box_of(part.any(1), part.any(0))
            box = tight.moved(area.top + region.top, area.left + region.left)
            yield Object(label, box, tight.of(part))


def crop_around(box: Window, size: tuple[int, int], expand: float) -> Window:
    """A box with some of its surroundings, inside the image.

    Args:
        box: of the object.
        size: ``(H, W)`` of the image.
        expand: how much longer each side becomes, as a share of itself: with 0.25 a box of 80
            pixels gains 10 at either end. Sides are then rounded up to a multiple of
            ``SIDE_MULTIPLE``, as far as the image allows.
    """
    ends = []
    for start, stop, limit in ((box.top, box.bottom, size[0]), (box.left, box.right, size[1])):
        margin = (stop - start) * expand / 2
        start, stop = max(int(start - margin), 0), min(math.ceil(stop + margin), limit)
        length = min(-(-(stop - start) // SIDE_MULTIPLE) * SIDE_MULTIPLE, limit)
        start = min(max(start - (length - (stop - start)) // 2, 0), limit - length)
        ends.append((start, start + length))
    (top, bottom), (left, right) = ends
    return Window(top, left, bottom, right)


class Job(NamedTuple):
    """A mask to refine.

    Attributes:
        key: number by which the caller recognizes the result.
        crop: the part of the image to refine it in.
        mask: float ``[*crop.size]`` in ``0 .. 1``.
    """

    key: int
    crop: Window
    mask: Tensor


def refine_crops(refiner: CRMRefiner, image: Tensor, jobs: Iterable[Job]
                 ) -> Iterator[tuple[Job, Tensor]]:
    """Refine objects crop by crop, crops of equal size together.

    Args:
        refiner: in evaluation mode.
        image: ``[3, H, W]``, uint8 as loaded, or normalized.
        jobs: in any order. Crops of one size wait for each other until they have
            ``BATCH_PIXELS``.

    Yields:
        A job and its probabilities, float32 ``[*crop.size]``; not in the order of the jobs.
    """
    waiting: dict[tuple[int, int], list[Job]] = defaultdict(list)
    for job in jobs:
        size = job.crop.size
        waiting[size].append(job)
        if (len(waiting[size]) + 1) * size[0] * size[1] > BATCH_PIXELS:
            yield from refine_batch(refiner, image, waiting.pop(size))
    for batch in waiting.values():
        yield from refine_batch(refiner, image, batch)


def refine_batch(refiner: CRMRefiner, image: Tensor, jobs: list[Job]
                 ) -> Iterator[tuple[Job, Tensor]]:
    """Refine crops of one size together, enlarged to ``LONG_SIDE`` if they are smaller.

    Arguments and yields are those of :func:`refine_crops`.
    """
    size = jobs[0].crop.size
    images = torch.stack([job.crop.of(image) for job in jobs])
    masks = torch.stack([job.mask for job in jobs])
    scale = LONG_SIDE / max(size)
    if scale > 1:
        larger = scaled(size, scale)
        images = F.interpolate(images.float(), larger, mode='bilinear')
        if image.dtype == torch.uint8:
            images = images.round().to(torch.uint8)
        masks = F.interpolate(masks[:, None], larger, mode='bilinear')[:, 0]
    refined = refiner.refine(images, masks).mask
    if scale > 1:
        refined = F.interpolate(refined[:, None], size, mode='bilinear')[:, 0]
    yield from zip(jobs, refined, strict=True)


def object_jobs(objects: list[Object], size: tuple[int, int], expand: float, device: torch.device
                ) -> Iterator[Job]:
    """Jobs for :func:`refine_crops`, one for each object.

    Args:
        objects: the key of a job is the object's place in this list.
        size: ``(H, W)`` of the image.
        expand: of :func:`crop_around`.
        device: of the masks.
    """
    for key, instance in enumerate(objects):
        crop = crop_around(instance.box, size, expand)
        mask = torch.zeros(crop.size, device=device)
        instance.box.relative_to(crop).of(mask).copy_(torch.from_numpy(instance.mask))
        yield Job(key, crop, mask)

