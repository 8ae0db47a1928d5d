"""Predictions for Label Studio."""
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat

if TYPE_CHECKING:
    from mmsparse.engine.prediction import Prediction, Region

MAX_RUN = 2**16


def brush_code(mask: np.ndarray) -> list[int]:
    """Label Studio's run-length code of a mask, the bytes of ``rle-pack``.

    A number of 32 bits says how many values there are, four for every pixel (RGBA, all the same
    here); five bits and four times four how many bits a value and the lengths of runs have, less
    one. Then runs: a bit that is 1, two that choose one of the four sizes (the first), the length
    less one, the value. The sizes are free, and all are 16 bits here, so a run has 27 bits.

    Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    Args:
        mask: bool ``[H, W]``.
    """
    values = 4 * mask.size
    if values >= 2**32:
        raise ValueError(f'{mask.size} pixels are more than a brush of Label Studio can hold')
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(starts, append=flat.size)
    pieces = -(-lengths // MAX_RUN)
    last = np.cumsum(pieces) - 1
    runs = np.full(pieces.sum(), MAX_RUN)
    runs[last] = lengths - (pieces - 1) * MAX_RUN
    inside = np.repeat(flat[starts], pieces)
    code = (0b100 << 24) | (runs - 1) << 8 | np.where(inside, 255, 0)  # 27 bits
    bits = np.concatenate([
        bits_of(np.array([values]), 32), bits_of(np.array([7]), 5),
        bits_of(np.full(4, 15), 4), bits_of(code, 27)])
    return np.packbits(bits).tolist()


def bits_of(numbers: np.ndarray, count: int) -> np.ndarray:
    """The bits of whole numbers ``[N]``, the highest first, bool ``[N * count]``."""
    return (numbers[:, None] >> np.arange(count - 1, -1, -1) & 1).astype(bool).ravel()


class LabelStudio(OutputFormat):
    """Tasks with predictions as JSON: a brush for each object, or class in a picture.

    A detector that gives boxes alone has rectangles. Pictures are looked for in Label Studio's
    local storage, ``/data/local-files/?d=`` and their path below the inputs. The labeling
    interface needs ``<Image name="image" value="$image"/>``, and for it ``<BrushLabels
    name="brush" toName="image">`` or ``<RectangleLabels name="box" toName="image">``.

    Source: https://labelstud.io/guide/predictions
    """

    suffix = '.json'
    document = 'label-studio.json'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's task."""
        results = [self._result(region, prediction.size, number)
                   for number, region in enumerate(prediction.regions(len(self.classes)), 1)]
        scores = [result['score'] for result in results if 'score' in result]
        predicted: dict[str, Any] = dict(model_version='mmsparse', result=results)
        if scores:
            predicted['score'] = sum(scores) / len(scores)
        image = f'/data/local-files/?d={quote(prediction.name.as_posix())}'
        return json.dumps(dict(data=dict(image=image), predictions=[predicted])).encode()

    def _result(self, region: Region, size: tuple[int, int], number: int) -> dict[str, Any]:
        height, width = size
        result: dict[str, Any] = dict(
            id=str(number), to_name='image', original_width=width, original_height=height,
            image_rotation=0)
        name = self.classes[region.label]
        if region.mask is None:
            left, top, w, h = region.box
            result |= dict(type='rectanglelabels', from_name='box', value=dict(
                x=100 * left / width, y=100 * top / height, width=100 * w / width,
                height=100 * h / height, rotation=0, rectanglelabels=[name]))
        else:
            result |= dict(type='brushlabels', from_name='brush', value=dict(
                format='rle', rle=brush_code(coco.decode(region.mask).astype(bool)),
                brushlabels=[name]))
        return result if region.score is None else result | dict(score=region.score)

    def join(self, parts: Iterable[bytes]) -> bytes:
        """The list of tasks."""
        return b'[' + b',\n'.join(parts) + b']'
