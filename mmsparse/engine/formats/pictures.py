"""Predictions as pictures: class numbers, colors over the picture, the panels of a refinement."""
from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .base import OutputFormat

if TYPE_CHECKING:
    from mmengine.model import BaseModel

    from mmsparse.engine.prediction import Prediction, Region
    from mmsparse.visualization import Shape


def encode_picture(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    """A picture file.

    Args:
        suffix: which one, such as ``'.png'``.
        picture: BGR or gray.
        options: of OpenCV, each followed by its value.

    Raises:
        ValueError: the format cannot hold it.
    """
    try:
        done, content = cv2.imencode(suffix, picture, options)
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot write it as {suffix}: {error.err}') from error
    if not done:
        raise ValueError(f'OpenCV cannot write {list(picture.shape)} pixels as {suffix}')
    return content.tobytes()


class Labels(OutputFormat):
    """A PNG of class numbers from 0: 8 bits for up to 255 classes, else 16 bits.

    The highest number, 255 or 65535, stands for no class, which panoptic models know.
    """

    suffix = '.png'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's class map."""
        dtype = np.uint8 if len(self.classes) < 256 else np.uint16
        labels = prediction.class_map(len(self.classes), no_class=np.iinfo(dtype).max)
        return encode_picture(self.suffix, labels.astype(dtype))


class Overlay(OutputFormat):
    """The picture under the colors and names of what was found, a JPEG.

    Objects, and segments of a panoptic model, have a white outline; detectors add their score.
    """

    suffix = '.jpg'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture as drawn."""
        from mmsparse.visualization import paint_over, paint_shapes

        if prediction.is_semantic:
            drawn = paint_over(prediction.image, prediction.class_map(len(self.classes)),
                               self.classes, self.palette)
        else:
            regions = sorted(prediction.regions(len(self.classes)), key=lambda r: r.score or 0)
            drawn = paint_shapes(prediction.image, map(self._shape, regions))
        return encode_picture(self.suffix, drawn)

    def _shape(self, region: Region) -> Shape:
        from mmsparse.rle import decode_patch
        from mmsparse.visualization import Shape

        score = '' if region.score is None else f' {region.score:.2f}'
        where = None if region.mask is None else decode_patch(region.mask)
        return Shape(where, region.box, self.classes[region.label] + score,
                     self.palette[region.label])


class Panels(OutputFormat):
    """A JPEG of what a SparseRefine model saw, where it looked and what it changed, in panels."""

    suffix = '.jpg'

    def __init__(self, model: BaseModel) -> None:
        from mmsparse.models.sparserefine import SparseRefineSegmentor
        from mmsparse.sparse import EntropySelector

        super().__init__(model)
        if not isinstance(model, SparseRefineSegmentor):
            raise ValueError("the output format 'panels' is for SparseRefineSegmentor, got "
                             f'{type(model).__name__}: nothing is refined there')
        model.test_cfg['keep_score'] = True
        self.score_name = ('Entropy in nats' if isinstance(model.selector, EntropySelector)
                           else 'Score of the selector')

    def encode(self, prediction: Prediction) -> bytes:
        """Image, low-resolution result, score, selected pixels and refined result, in a row."""
        from mmsparse.visualization import refinement_strip

        low, score, selected, refined = (prediction.sample.get(name).data[0].numpy() for name in (
            'low_res_sem_seg', 'selection_score', 'selected', 'pred_sem_seg'))
        return encode_picture(self.suffix, refinement_strip(
            prediction.image, low, score, selected, refined, score_name=self.score_name,
            classes=self.classes, palette=self.palette))
