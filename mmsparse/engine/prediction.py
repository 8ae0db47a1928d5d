"""A picture and what a model says of it, in one form for every kind of model.

Letters: ``H, W`` size of the picture in pixels, ``K`` classes.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample

INSTANCE_OFFSET = 1000  # mmdet's: the number of a panoptic segment is object * 1000 + class


class WrongModelError(ValueError):
    """A model gives nothing of the kind that is asked for, whatever the picture."""


class Region(NamedTuple):
    """A part of a picture that has a class.

    Attributes:
        label: number of its class, from 0.
        box: left, top, width, height in pixels.
        mask: COCO's run-length code, ``{'size': [H, W], 'counts': bytes}``
            (``pycocotools.mask.decode`` makes an array of it); ``None`` of a detector that finds
            boxes alone.
        score: 0 to 1; ``None`` of a segmentor.
    """

    label: int
    box: tuple[float, float, float, float]
    mask: dict[str, Any] | None
    score: float | None = None

    @property
    def area(self) -> float:
        """In pixels: of the mask, else of the box."""
        return self.box[2] * self.box[3] if self.mask is None else float(coco.area(self.mask))


@dataclass(frozen=True)
class Prediction:
    """A picture and what a model says of it.

    Attributes:
        file: the picture, or the video that it is a frame of.
        name: its path below the folder of all inputs, with its suffix: ``street/1.jpg``. The
            frames of ``clip.mp4`` are ``clip/000000.jpg``, ``clip/000001.jpg``, ..., as mmcv's
            ``VideoReader.cvt2frames`` names them.
        image: uint8 BGR ``[H, W, 3]``, as the model saw it.
        sample: on the CPU, with ``pred_sem_seg`` of a segmentor, ``pred_instances`` or
            ``pred_panoptic_seg`` of a detector.
    """

    file: Path
    name: Path
    image: np.ndarray
    sample: SegDataSample | DetDataSample

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)``."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def is_panoptic(self) -> bool:
        """Whether pixels belong to segments that do not overlap, objects among them."""
        return 'pred_panoptic_seg' in self.sample

    @property
    def is_semantic(self) -> bool:
        """Whether pixels have classes, and there are no objects."""
        return 'pred_sem_seg' in self.sample and not self.is_panoptic

    def segments(self) -> np.ndarray:
        """Numbers of segments, ``[H, W]``: classes; of a panoptic model see ``INSTANCE_OFFSET``.

        Raises:
            WrongModelError: the model finds objects, which may overlap.
        """
        if self.is_panoptic:
            return self.sample.pred_panoptic_seg.sem_seg[0].numpy()
        if self.is_semantic:
            return self.sample.pred_sem_seg.data[0].numpy()
        raise WrongModelError('the model finds objects, which may overlap, and gives no class map')

    def class_map(self, num_classes: int, no_class: int = 255) -> np.ndarray:
        """The class of every pixel, from 0, int64 ``[H, W]``.

        Args:
            num_classes: ``K``, of the classes that have a name.
            no_class: what stands where a panoptic model finds no class.

        Raises:
            WrongModelError: the model finds objects, which may overlap, or has other classes.
        """
        classes = self.segments().astype(np.int64)
        if self.is_panoptic:
            classes %= INSTANCE_OFFSET
        check_labels(classes, num_classes + self.is_panoptic)
        return np.where(classes == num_classes, no_class, classes)

    def regions(self, num_classes: int) -> Iterator[Region]:
        """What was found: objects, or of a segmentor one region for each class in the picture.

        Args:
            num_classes: ``K``, of the classes that have a name.

        Raises:
            WrongModelError: the model has other classes.
        """
        if not (self.is_panoptic or self.is_semantic):
            check_labels(self.sample.pred_instances.labels.numpy(), num_classes)
            yield from self._objects()
            return
        segments = self.segments()
        for number in np.unique(segments).tolist():
            label = number % INSTANCE_OFFSET if self.is_panoptic else number
            check_labels(np.array(label), num_classes + self.is_panoptic)
            if label < num_classes:
                yield region_of(label, segments == number)

    def _objects(self) -> Iterator[Region]:
        """The objects of a detector; those whose mask is empty are left out."""
        objects = self.sample.pred_instances
        for i, (label, score, box) in enumerate(zip(
                objects.labels.tolist(), objects.scores.tolist(), objects.bboxes.tolist(),
                strict=True)):
            if 'masks' not in objects:
                left, top, right, bottom = box
                yield Region(label, (left, top, right - left, bottom - top), None, score)
                continue
            found = region_of(label, objects.masks[i], score)
            if found.area:
                yield found


def region_of(label: int, mask: Any, score: float | None = None) -> Region:
    """A region from its mask, bool ``[H, W]`` or a run-length code; its box is that of the mask."""
    code = mask if isinstance(mask, dict) else coco.encode(np.asfortranarray(mask, np.uint8))
    left, top, width, height = coco.toBbox(code).tolist()
    return Region(label, (left, top, width, height), code, score)


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Refuse numbers of classes that have no name.

    Raises:
        WrongModelError: there is one.
    """
    if labels.size and labels.max() >= num_classes:
        raise WrongModelError(f'the model gives class {labels.max()}, but checkpoint or test set '
                              f'name {num_classes} classes, from 0')
