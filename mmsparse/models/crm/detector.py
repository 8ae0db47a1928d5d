"""Any mmdet detector with masks, refined by CRM at the size of the original image.

Source: CRM (CVPR 2022). The only module of this room that imports mmdet. Letters: ``N`` instances,
``H, W`` size of the original image.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor

from mmsparse.preprocessing import shared_preprocessor
from mmsparse.registry import MODELS
from mmsparse.sizes import size_of

from .objects import Job, box_of, crop_around, refine_crops
from .wrappers import (
    EXPAND,
    MIN_AREA,
    check_objects,
    join_parts,
    original_image,
    refuse_settings,
)


@MODELS.register_module()
class RefinedDetector(BaseDetector):
    """An mmdet detector whose instance masks are refined at the size of the original image.

    Boxes, scores and labels stay; masks may overlap. Used as
    :class:`~mmsparse.models.crm.RefinedSegmentor`.

    Args:
        detector: its config.
        refiner: config of a :class:`CRMRefiner`.
        detector_checkpoint, refiner_checkpoint: as ``segmentor_checkpoint`` and the other of
            :class:`~mmsparse.models.crm.RefinedSegmentor`.
        expand: by which share of its sides an instance's crop grows.
        min_area: masks of at most this many pixels are not refined.
    """

    def __init__(self,
                 *,
                 detector: dict,
                 refiner: dict,
                 detector_checkpoint: str | None = None,
                 refiner_checkpoint: str | None = None,
                 expand: float = EXPAND,
                 min_area: int = MIN_AREA,
                 data_preprocessor: dict | None = None,
                 train_cfg: None = None,
                 test_cfg: None = None,
                 init_cfg: dict | None = None) -> None:
        detector = ConfigDict(detector)
        super().__init__(init_cfg=init_cfg, data_preprocessor=shared_preprocessor(
            data_preprocessor, dict(detector=detector.pop('data_preprocessor', None))))
        refuse_settings(type(self).__name__, train_cfg=train_cfg, test_cfg=test_cfg)
        check_objects(type(self).__name__, expand, min_area)
        join_parts(self, 'detector', MMDET_MODELS.build(detector), refiner,
                   checkpoint=detector_checkpoint, refiner_checkpoint=refiner_checkpoint)
        self.expand = expand
        self.min_area = min_area

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample],
                rescale: bool = True) -> list[DetDataSample]:
        """Detections with refined ``masks``, those of the detector in ``coarse_masks``.

        Raises:
            ValueError: the detector gives no masks.
        """
        if not rescale:
            raise ValueError('masks are refined on the original image: rescale must be True')
        samples = self.detector.predict(batch_inputs, batch_data_samples, rescale=True)
        for sample in samples:
            detections = sample.pred_instances
            if 'masks' not in detections:
                raise ValueError(f'{type(self.detector).__name__} gives no masks to refine')
            detections.coarse_masks = detections.masks
            if len(detections):
                detections.masks = self.refine_masks(
                    original_image(sample.metainfo), detections.masks)
        return samples

    def refine_masks(self, image: Tensor, masks: Tensor) -> Tensor:
        """Refine masks one by one.

        Args:
            image: uint8 ``[3, H, W]``.
            masks: bool ``[N, H, W]``.
        """
        areas, rows, columns = (x.cpu().numpy() for x in (
            masks.flatten(1).sum(1), masks.any(2), masks.any(1)))

        def jobs() -> Iterator[Job]:
            for key in np.flatnonzero(areas > self.min_area).tolist():
                box = box_of(rows[key], columns[key])
                crop = crop_around(box, size_of(masks), self.expand)
                yield Job(key, crop, crop.of(masks[key]).float())

        refined = masks.clone()
        for job, p in refine_crops(self.refiner, image.to(masks.device), jobs()):
            refined[job.key].zero_()
            job.crop.of(refined[job.key]).copy_(p > 0.5)
        return refined

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The detector's features."""
        return self.detector.extract_feat(batch_inputs)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample] | None = None
                 ) -> tuple:
        return self.detector(batch_inputs, batch_data_samples, mode='tensor')

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict:
        """Not defined: detector and refiner are trained apart."""
        raise NotImplementedError(
            'a RefinedDetector is not trained: the detector and the class-agnostic refiner are, '
            'each by its own config')
