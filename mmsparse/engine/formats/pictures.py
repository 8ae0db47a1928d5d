"""Predictions as pictures: class numbers, colors over the picture, the panels of a refinement."""
from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmengine.model import BaseModel

    from mmsparse.engine.prediction import Prediction


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


def drawable(sample: DetDataSample) -> DetDataSample:
    """What mmdet draws of a detector's sample, masks out of run-length codes."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    found = sample.pred_instances
    objects = InstanceData(bboxes=found.bboxes, labels=found.labels, scores=found.scores)
    if 'masks' in found:
        objects.masks = found.masks
        if isinstance(found.masks, list):  # EffSeg's, with encode_masks=True
            decoded = [torch.from_numpy(coco.decode(mask)) for mask in found.masks]
            objects.masks = torch.stack(decoded) if decoded else torch.zeros(0, *sample.ori_shape)
    return DetDataSample(pred_instances=objects)


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

    Objects are drawn by mmdet, with their boxes and scores.
    """

    suffix = '.jpg'

    def __init__(self, model: BaseModel) -> None:
        from mmdet.visualization import DetLocalVisualizer

        super().__init__(model)
        self.visualizer = DetLocalVisualizer(alpha=0.6)
        self.visualizer.dataset_meta = dict(classes=self.classes, palette=self.palette)

    def encode(self, prediction: Prediction) -> bytes:
        """The picture as drawn."""
        from mmsparse.visualization import paint_over

        if prediction.has_class_map:
            return encode_picture(self.suffix, paint_over(
                prediction.image, prediction.class_map(len(self.classes), no_class=-1),
                self.classes, self.palette))
        self.visualizer.add_datasample(
            'overlay', prediction.image[..., ::-1], drawable(prediction.sample), draw_gt=False,
            pred_score_thr=-1)
        return encode_picture(self.suffix, self.visualizer.get_image()[..., ::-1])


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
