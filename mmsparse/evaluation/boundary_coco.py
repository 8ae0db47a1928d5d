"""Boundary AP: COCO's AP where two masks must also agree along their boundaries.

Source: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021. Letters: ``H, W`` size of an image, ``D`` its detections, ``G`` its annotated objects.

Why not faster-coco-eval (``iouType='boundary'``, ``lvis_style=True``)? Version 1.8.0 gave the same
figures on COCO's rules, crowd regions included, in as much processor time, but it

- rounds the width of boundaries down at one half: 7 pixels in a 225x300 image, where ``round``
  gives 8, here and in the authors' code;
- misses boundary pixels in images that are lower than a boundary window (20x600);
- takes mAP over the largest number of detections asked for, where COCO takes 100;
- by LVIS's rules counts empty detections as errors, and all detections of an image instead of 300:
  AP was off by up to 0.16 on the images of this package's tests.
"""
from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import cv2
import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval, COCOevalMP
from mmdet.evaluation import CocoMetric
from pycocotools import mask as coco
from pycocotools.cocoeval import COCOeval as PlainCOCOeval

from mmsparse.registry import METRICS
from mmsparse.rle import Patch, decode_patch, encode_patch


def boundary_width(size: Sequence[int], ratio: float = 0.02) -> int:
    """Width of boundaries in an image, in pixels: ``max(1, round(ratio * diagonal))``.

    Args:
        size: ``(H, W)``.
        ratio: width as a share of the image's diagonal.
    """
    return max(1, round(ratio * math.hypot(*size)))


def mask_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask that are within ``width`` steps (straight or diagonal) of its outside.

    In other words, what ``width`` erosions with a 3x3 square remove. Everything beyond the array
    counts as outside, so an object that touches the border of the image has a boundary there.

    Args:
        mask: bool ``[H, W]``, or a part of it that holds all the foreground.
        width: in pixels, from :func:`boundary_width`.

    Returns:
        bool, same shape.
    """
    side = 2 * width + 1
    if min(mask.shape) < side:  # no pixel can lie deeper; and OpenCV refuses empty arrays
        return mask.copy()
    # A pixel lies deeper than `width` if the whole window around it is foreground. The time of
    # counting with a box filter does not grow with the width, that of an erosion does.
    around = cv2.boxFilter(mask.astype(np.uint8), cv2.CV_32S, (side, side), normalize=False,
                           borderType=cv2.BORDER_CONSTANT)
    return mask & (around < side**2)


def code_boundary(code: dict, ratio: float = 0.02) -> dict:
    """Boundary of a run-length encoded mask, also run-length encoded.

    Args:
        code: as of ``pycocotools``. Only the box around its foreground is decoded.
        ratio: width of the boundary as a share of the image's diagonal.
    """
    patch = decode_patch(code)
    boundary = mask_boundary(patch.mask, boundary_width(code['size'], ratio))
    return encode_patch(Patch(boundary, patch.top, patch.left), tuple(code['size']))


class BoundaryIoU(PlainCOCOeval):
    """For COCO's evaluators: the IoU becomes the smaller of mask IoU and boundary IoU.

    For crowd regions it stays the mask IoU, which is there the intersection over the area of the
    detection: the outline of a crowd region is not the boundary of an object.

    Attributes:
        ratio: width of boundaries as a share of the image's diagonal.
    """

    ratio = 0.02

    def _prepare(self) -> None:
        super()._prepare()
        for detections in self._dts.values():
            for detection in detections:  # `loadRes` takes the area of the box if there is one
                detection['area'] = float(coco.area(detection['segmentation']))

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:  # noqa: N802, N803
        """IoUs ``[D, G]`` of one image and category; ``[]`` if it has no detections or no objects.

        Args:
            imgId: image id.
            catId: category id; not used if the evaluator ignores categories (``useCats=0``).
        """
        mask_iou = super().computeIoU(imgId, catId)  # [D, G]
        if len(mask_iou) == 0:
            return mask_iou
        # a copy of this evaluator with boundaries in place of masks computes their IoU
        of_boundaries = copy.copy(self)
        categories = [catId] if self.params.useCats else self.params.catIds
        for name in ('_gts', '_dts'):
            annotations = getattr(self, name)
            setattr(of_boundaries, name, {
                (imgId, category): [self._boundary(x) for x in annotations[imgId, category]]
                for category in categories})
        boundary_iou = super(BoundaryIoU, of_boundaries).computeIoU(imgId, catId)  # [D, G]
        crowd = [bool(x['iscrowd'])
                 for category in categories for x in self._gts[imgId, category]]  # [G]
        return np.where(crowd, mask_iou, np.minimum(mask_iou, boundary_iou))

    def _boundary(self, annotation: dict) -> dict:
        """Copy of an annotation with its boundary in place of its mask.

        The boundary is kept in the annotation: each is computed once.
        """
        if 'boundary' not in annotation:
            annotation['boundary'] = code_boundary(annotation['segmentation'], self.ratio)
        return annotation | dict(segmentation=annotation['boundary'])


class BoundaryCOCOeval(BoundaryIoU, COCOeval):
    """``pycocotools``' evaluator, with :class:`BoundaryIoU`."""


class BoundaryCOCOevalMP(BoundaryIoU, COCOevalMP):
    """mmdet's evaluator in several processes, with :class:`BoundaryIoU`."""


def with_evaluators(method: FunctionType, **evaluators: Callable) -> FunctionType:
    """Copy of a function of mmdet in which global names stand for other evaluators.

    ``CocoMetric.compute_metrics`` builds the evaluators ``COCOeval`` and ``COCOevalMP`` that its
    module imports, and has no argument to choose others. mmdet itself is not changed.

    Args:
        method: the function to copy.
        evaluators: by global name, what the copy calls instead.

    Raises:
        ValueError: the function does not use one of the names.
    """
    missing = evaluators.keys() - set(method.__code__.co_names)
    if missing:
        raise ValueError(f'{method.__module__}.{method.__qualname__} of the installed mmdet has '
                         f'no {sorted(missing)[0]}')
    return FunctionType(method.__code__, method.__globals__ | evaluators, method.__name__,
                        method.__defaults__, method.__closure__)


@METRICS.register_module()
class BoundaryCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric`` with one more metric, ``'boundary'``.

    It is the AP of masks with the smaller of mask IoU and boundary IoU as IoU. Figures:
    ``coco/boundary_mAP``, ``coco/boundary_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l``; with
    ``classwise`` also ``coco/boundary_{class}_precision``. The metric stands beside a
    ``CocoMetric`` in a list of evaluators, or replaces it: ``metric=['bbox', 'segm', 'boundary']``.
    Detections are ranked by ``mask_scores`` where the model predicts them, as for ``'segm'``.

    Args:
        ann_file: annotation file of COCO's format; ``None`` takes the annotations of the dataset.
        metric: one or several of ``'boundary'`` and the metrics of ``CocoMetric``.
        dilation_ratio: width of boundaries as a share of the image's diagonal, in (0, 1): 0.02 for
            COCO and LVIS, 0.005 for Cityscapes.
        kwargs: arguments of ``CocoMetric``.

    Raises:
        KeyError: ``metric`` is empty or has an unknown name.
        ValueError: ``dilation_ratio`` is not in (0, 1).
    """

    # name in mmdet: (evaluator of the metrics of CocoMetric, evaluator of 'boundary')
    evaluators = dict(COCOeval=(COCOeval, BoundaryCOCOeval),
                      COCOevalMP=(COCOevalMP, BoundaryCOCOevalMP))

    def __init__(self, ann_file: str | None = None, metric: str | Sequence[str] = 'boundary', *,
                 dilation_ratio: float = 0.02, **kwargs: Any) -> None:
        metrics = [metric] if isinstance(metric, str) else list(metric)
        super().__init__(ann_file, [name for name in metrics if name != 'boundary'], **kwargs)
        if not metrics:
            raise KeyError(f'{type(self).__name__}.metric names no metric')
        if not 0 < dilation_ratio < 1:
            raise ValueError(f'{type(self).__name__}.dilation_ratio must be in (0, 1), got '
                             f'{dilation_ratio!r}')
        self.metrics = metrics
        self.dilation_ratio = dilation_ratio

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write the files of ``CocoMetric``; ``'boundary'`` is scored from the file of ``'segm'``.

        Returns:
            Paths by metric.
        """
        files = super().results2json(results, outfile_prefix)
        return files | ({'boundary': files['segm']} if 'segm' in files else {})

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures of ``CocoMetric``; names of those of boundaries start with ``boundary_``."""
        evaluate = with_evaluators(CocoMetric.compute_metrics, **{
            name: partial(self.evaluator, *pair) for name, pair in self.evaluators.items()})
        metrics, figures = self.metrics, OrderedDict()
        others = [name for name in metrics if name != 'boundary']
        try:
            if others:
                self.metrics = others
                figures.update(evaluate(self, results))
            if 'boundary' in metrics:  # apart: all metrics name a class's figure the same
                self.metrics = ['boundary']
                figures.update((f'boundary_{key}' if key.endswith('_precision') else key, value)
                               for key, value in evaluate(self, results).items())
        finally:
            self.metrics = metrics
        return figures

    def evaluator(self, plain: type, boundary: type, gt: COCO, detections: COCO, iou_type: str
                  ) -> COCOeval:
        """Build the evaluator that ``compute_metrics`` asks for.

        Args:
            plain: class for ``iou_type`` ``'bbox'`` and ``'segm'``.
            boundary: class for ``'boundary'``.
            gt: annotations.
            detections: detections, from ``gt.loadRes``.
            iou_type: what the IoU is of.
        """
        if iou_type != 'boundary':
            return plain(gt, detections, iou_type)
        evaluator = boundary(gt, detections, 'segm')
        evaluator.ratio = self.dilation_ratio
        return evaluator
