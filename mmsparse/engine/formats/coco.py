"""Predictions as COCO's JSON with run-length codes."""
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .base import OutputFormat

if TYPE_CHECKING:
    from mmsparse.engine.prediction import Prediction


class Coco(OutputFormat):
    """One JSON as of a COCO data set: images, annotations, categories.

    An annotation is an object, or of a segmentor all of a class in one picture, as in COCO-Stuff;
    its mask a compressed run-length code. Those of a detector have a ``score``, so that
    ``COCO.loadRes`` takes them as results too. ``category_id`` is the number of the class plus 1.

    Source: https://cocodataset.org/#format-data
    """

    suffix = '.json'
    document = 'coco.json'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's image and annotations, without ids."""
        height, width = prediction.size
        annotations = []
        for region in prediction.regions(len(self.classes)):
            annotation: dict[str, Any] = dict(
                category_id=region.label + 1, bbox=list(region.box), area=region.area, iscrowd=0)
            if region.mask is not None:
                annotation['segmentation'] = dict(
                    size=region.mask['size'], counts=region.mask['counts'].decode())
            if region.score is not None:
                annotation['score'] = region.score
            annotations.append(annotation)
        image = dict(file_name=prediction.name.as_posix(), height=height, width=width)
        return json.dumps(dict(image=image, annotations=annotations)).encode()

    def join(self, parts: Iterable[bytes]) -> bytes:
        """The data set; ids count from 1."""
        images: list[dict] = []
        annotations: list[dict] = []
        for part in map(json.loads, parts):
            images.append(dict(id=len(images) + 1, **part['image']))
            for annotation in part['annotations']:
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=len(images), **annotation))
        categories = [dict(id=k, name=name) for k, name in enumerate(self.classes, 1)]
        return json.dumps(dict(
            images=images, annotations=annotations, categories=categories)).encode()
