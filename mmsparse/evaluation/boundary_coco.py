"""Boundary AP: COCO's AP where masks must agree along their boundaries too.

Source: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021. Letters: ``H, W`` size of the image, ``D`` detections, ``G`` annotated objects.
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

from mmsparse.registry import METRICS
from mmsparse.rle import Window, decode_window, encode_window


def boundary_width(size: Sequence[int], ratio: float = 0.02) -> int:
    """Width of a boundary in pixels, ``max(1, round(ratio * diagonal))``.

    Args:
        size: ``(H, W)``.
        ratio: share of the image's diagonal.
    """
    return max(1, round(ratio * math.hypot(*size)))


def mask_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask that are at most ``width`` steps, straight or diagonal, from outside it.

    That is the mask without its erosion by ``width`` times 3x3. What lies beyond the array is
    outside: an object has a boundary along the border of the image.

    Args:
        mask: bool ``[H, W]``, or the part of it that holds its foreground.
        width: of :func:`boundary_width`.

    Returns:
        bool, same shape.
    """
    side = 2 * width + 1
    if min(mask.shape) < side:  # nothing is deeper inside; OpenCV knows no empty arrays
        return mask.copy()
    # deeper inside all pixels around are set; sums cost the same however wide, an erosion does not
    around = cv2.boxFilter(mask.astype(np.uint8), cv2.CV_32S, (side, side), normalize=False,
                           borderType=cv2.BORDER_CONSTANT)
    return mask & (around < side**2)


def code_boundary(code: dict, ratio: float = 0.02) -> dict:
    """Boundary of a run-length code, as a run-length code; computed in the mask's bounding box."""
    window = decode_window(code)
    edge = mask_boundary(window.mask, boundary_width(code['size'], ratio))
    return encode_window(Window(edge, window.top, window.left), tuple(code['size']))


class BoundaryIoU:
    """Of an evaluator of masks one that takes the smaller of mask IoU and boundary IoU.

    Crowd regions keep their mask IoU, intersection over the area of the detection: their outline is
    no boundary of an object.

    Attributes:
        ratio: width of boundaries, as a share of the image's diagonal.
    """

    ratio = 0.02

    def _prepare(self) -> None:
        super()._prepare()
        for detections in self._dts.values():
            for detection in detections:  # small, medium or large by the mask and not by the box
                detection['area'] = float(coco.area(detection['segmentation']))

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:  # noqa: N802, N803
        """``[D, G]`` of one image and category, ``[]`` where there are none of either."""
        masks = super().computeIoU(imgId, catId)
        if len(masks) == 0:
            return masks
        # the same evaluator sees boundaries as masks
        edges = copy.copy(self)
        categories = [catId] if self.params.useCats else self.params.catIds
        for name in ('_gts', '_dts'):
            found = getattr(self, name)
            setattr(edges, name, {
                (imgId, category): [self._boundary(x) for x in found[imgId, category]]
                for category in categories})
        smaller = np.minimum(masks, super(BoundaryIoU, edges).computeIoU(imgId, catId))
        crowd = [bool(x['iscrowd']) for category in categories for x in self._gts[imgId, category]]
        return np.where(crowd, masks, smaller)

    def _boundary(self, annotation: dict) -> dict:
        """The annotation with its boundary in place of its mask, which is computed once."""
        if 'boundary' not in annotation:
            annotation['boundary'] = code_boundary(annotation['segmentation'], self.ratio)
        return annotation | dict(segmentation=annotation['boundary'])


class BoundaryCOCOeval(BoundaryIoU, COCOeval):
    """``pycocotools``' evaluator of masks with :class:`BoundaryIoU`."""


class BoundaryCOCOevalMP(BoundaryIoU, COCOevalMP):
    """mmdet's evaluator of masks in several processes with :class:`BoundaryIoU`."""


def with_evaluators(method: FunctionType, **evaluators: Callable) -> FunctionType:
    """A method of mmdet's that builds other evaluators.

    ``CocoMetric.compute_metrics`` takes them from its module by name, and there is no other way
    to choose them.

    Args:
        method: a function.
        evaluators: what it finds under the names of globals.

    Raises:
        ValueError: it uses no such name.
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

    It is the AP of masks where the IoU is the smaller of mask IoU and boundary IoU, and gives
    ``coco/boundary_mAP``, ``coco/boundary_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l``; with
    ``classwise`` also ``coco/boundary_{class}_precision``. It stands beside a ``CocoMetric`` in a
    list of evaluators, or in place of one: ``metric=['bbox', 'segm', 'boundary']``. Scores are
    ``mask_scores`` where the model predicts them, as for ``'segm'``.

    Args:
        ann_file: annotations; ``None`` takes those of the dataset.
        metric: one or several of ``'boundary'`` and those of ``CocoMetric``.
        dilation_ratio: width of boundaries as a share of the image's diagonal, in (0, 1): 0.02 for
            COCO and LVIS, 0.005 for Cityscapes.
        kwargs: those of ``CocoMetric``.

    Raises:
        KeyError: there is no such metric.
        ValueError: the ratio is none.
    """

    # by the name in mmdet: the evaluator of other metrics, the one of boundaries
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
        """Write the files of ``CocoMetric``; boundaries are those of the masks in ``'segm'``."""
        files = super().results2json(results, outfile_prefix)
        return files | ({'boundary': files['segm']} if 'segm' in files else {})

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures of ``CocoMetric``, and those of boundaries under ``boundary_``."""
        evaluate = with_evaluators(CocoMetric.compute_metrics, **{
            name: partial(self.evaluator, *kinds) for name, kinds in self.evaluators.items()})
        metrics, figures = self.metrics, OrderedDict()
        others = [name for name in metrics if name != 'boundary']
        try:
            if others:
                self.metrics = others
                figures.update(evaluate(self, results))
            if 'boundary' in metrics:  # apart: those of a class have the same name in all metrics
                self.metrics = ['boundary']
                figures.update((f'boundary_{key}' if key.endswith('_precision') else key, value)
                               for key, value in evaluate(self, results).items())
        finally:
            self.metrics = metrics
        return figures

    def evaluator(self, plain: type, boundary: type, truth: COCO, detections: COCO, kind: str
                  ) -> COCOeval:
        """Build the evaluator of a kind of IoU."""
        if kind != 'boundary':
            return plain(truth, detections, kind)
        evaluator = boundary(truth, detections, 'segm')
        evaluator.ratio = self.dilation_ratio
        return evaluator
