"""Predictions for FiftyOne."""
from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat

if TYPE_CHECKING:
    from mmsparse.engine.prediction import Prediction, Region

FIELD = 'prediction'


def binary(array: np.ndarray) -> dict[str, Any]:
    """An array in FiftyOne's JSON: numpy's file format, packed by zlib, as BSON writes bytes."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    packed = base64.b64encode(zlib.compress(content.getvalue())).decode()
    return {'$binary': {'base64': packed, 'subType': '00'}}


class FiftyOne(OutputFormat):
    """One JSON that ``fiftyone.Dataset.from_json(file, rel_dir=FOLDER_OF_THE_INPUTS)`` loads.

    The field ``prediction`` of a sample is a ``Segmentation``, or of a detector ``Detections``.
    FiftyOne takes 0 in a mask for background, so class numbers are one higher there;
    ``default_mask_targets`` names them.

    Source: https://docs.voxel51.com/user_guide/using_datasets.html, ``Dataset.from_dict``
    """

    suffix = '.json'
    document = 'fiftyone.json'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's sample."""
        label: dict[str, Any]
        if prediction.is_semantic or prediction.is_panoptic:
            dtype = np.uint8 if len(self.classes) < 256 else np.uint16
            classes = prediction.class_map(len(self.classes), no_class=-1) + 1
            label = dict(_cls='Segmentation', mask=binary(classes.astype(dtype)))
        else:
            label = dict(_cls='Detections', detections=[
                self._detection(region, prediction.size)
                for region in prediction.regions(len(self.classes))])
        sample = dict(filepath=prediction.name.as_posix(), _media_type='image', tags=[])
        return json.dumps(sample | {FIELD: label}).encode()

    def _detection(self, region: Region, size: tuple[int, int]) -> dict[str, Any]:
        height, width = size
        left, top, w, h = region.box
        detection: dict[str, Any] = dict(
            _cls='Detection', label=self.classes[region.label], confidence=region.score,
            bounding_box=[left / width, top / height, w / width, h / height])
        if region.mask is not None:
            x, y = int(left), int(top)
            inside = coco.decode(region.mask)[y:y + int(h), x:x + int(w)]
            detection['mask'] = binary(inside.astype(bool))
        return detection

    def join(self, parts: Iterable[bytes]) -> bytes:
        """The data set."""
        samples = [json.loads(part) for part in parts]
        kind = samples[0][FIELD]['_cls']
        field = f'fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.{kind})'
        targets = {str(label): name for label, name in enumerate(self.classes, 1)}
        return json.dumps(dict(
            name='mmsparse', media_type='image', sample_fields={FIELD: field}, info={},
            default_classes=list(self.classes),
            default_mask_targets=targets if kind == 'Segmentation' else {},
            samples=samples)).encode()
