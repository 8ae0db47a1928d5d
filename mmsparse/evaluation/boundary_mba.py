"""IoU and mean boundary accuracy (mBA) of refined masks, and of the coarse ones they come from.

Source: CascadePSP (CVPR 2020), sec. 4; CRM (CVPR 2022) reports the same two. Letters: ``H, W``
size, ``K`` classes.
"""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric

from mmsparse.registry import METRICS

from .labeled import Labeled

RADII = 5


def boundary_radii(height: int, width: int) -> list[int]:
    """Five half-widths, in pixels, of the band around the boundary.

    ``1 + int((r - 1) / 5 * i)`` for ``i = 0 ... 4`` with ``r = (W + H) / 300``, which itself is
    never reached: 1, 4, 8, 12, 16 for 3840x2160, all 1 where ``W + H < 675``.
    """
    largest = (width + height) / 300
    return [1 + int((largest - 1) / RADII * i) for i in range(RADII)]


def boundary_band(target: np.ndarray, radius: int) -> np.ndarray:
    """Band around the boundaries of a mask or label map.

    That of one class is its dilation without its erosion, by an ellipse of ``2 * radius + 1``
    pixels; that of all classes the union. So a pixel is in it if the ellipse around it covers two
    labels. The border of the image is no boundary.

    Args:
        target: bool or integers from 0 to 65535, ``[H, W]``.
        radius: in pixels.

    Returns:
        bool ``[H, W]``.
    """
    labels: np.ndarray = target.astype(np.uint8 if target.dtype == bool else np.uint16)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)


def boundary_bands(target: np.ndarray) -> list[np.ndarray]:
    """The five bands of :func:`boundary_radii`."""
    radii = boundary_radii(*target.shape)
    bands = {radius: boundary_band(target, radius) for radius in set(radii)}
    return [bands[radius] for radius in radii]


def accuracy_in_bands(bands: list[np.ndarray], prediction: np.ndarray, target: np.ndarray,
                      ignore_index: int = 255) -> float:
    """:func:`boundary_accuracy` with the bands of the target given."""
    if not bands[0].any():
        return float('nan')
    equal, valid = prediction == target, target != ignore_index
    return float(np.mean([equal[band & valid].mean() for band in bands]))


def boundary_accuracy(prediction: np.ndarray, target: np.ndarray, ignore_index: int = 255
                      ) -> float:
    """Boundary accuracy of one image: the mean over five bands of the share of equal pixels.

    Args:
        prediction, target: bool masks or integer label maps, ``[H, W]``.
        ignore_index: pixels with this label in the target count nowhere; where a class meets
            them is a boundary of the class.

    Returns:
        In [0, 1]; NaN for a target without a boundary.
    """
    return accuracy_in_bands(boundary_bands(target), prediction, target, ignore_index)


def foreground(mask: np.ndarray) -> np.ndarray:
    """The object of a soft mask in [0, 1]: above 128 once truncated to 8 bits, as published."""
    return mask * 255 >= 129


def class_areas(prediction: np.ndarray, target: np.ndarray, classes: int, ignore_index: int = 255
                ) -> np.ndarray:
    """Intersection and union of each class where the target is not ignored, int64 ``[2, K]``.

    Args:
        prediction, target: bool masks or integer label maps, ``[H, W]``.

    Raises:
        ValueError: a label is no class.
    """
    valid = target != ignore_index
    target, prediction = (labels[valid].astype(np.int64) for labels in (target, prediction))
    for name, labels in dict(target=target, prediction=prediction).items():
        wrong = labels[(labels < 0) | (labels >= classes)]
        if len(wrong):
            raise ValueError(f'the {name} holds {wrong[0]}: classes are from 0 to {classes - 1}')
    pairs = np.bincount(target * classes + prediction, minlength=classes ** 2)
    pairs = pairs.reshape(classes, classes)
    intersection = pairs.diagonal()
    return np.stack([intersection, pairs.sum(0) + pairs.sum(1) - intersection])


@METRICS.register_module()
class BoundaryAccuracyMetric(Labeled, BaseMetric):
    """IoU and mBA of the refined and of the coarse masks, in percent.

    ``IoU`` is pooled: the sum of the intersections over that of the unions of all images. ``mBA``
    is the mean of :func:`boundary_accuracy` over the images; ``skipped`` of them have a ground
    truth without any boundary, empty or full, and count for IoU only. ``coarse_IoU`` and
    ``coarse_mBA`` say the same of the coarse masks, if there are any.

    Data samples hold ``refined_mask``, ``gt_mask`` and ``coarse_mask``, float ``[1, H, W]`` in
    [0, 1], of the size of the ground truth; or, with ``classes``, the label maps ``pred_sem_seg``,
    ``gt_sem_seg`` and ``coarse_sem_seg``, and ``IoU`` is the mean over the classes that occur.

    Args:
        classes: their number, for label maps.
        ignore_index: label of pixels that count nowhere; ``None`` is the model's.
        collect_device, prefix: as in mmengine.
    """

    def __init__(self, *, classes: int | None = None, ignore_index: int | None = None,
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = classes
        self.ignore_index = 255 if classes is None else ignore_index  # masks ignore nothing

    def num_classes(self) -> int | None:
        """Classes of the label maps."""
        return self.classes

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            KeyError: a sample has no prediction.
            ValueError: a prediction has another size than the ground truth, or a label is no class.
        """
        refined, coarse, target = (
            ('refined_mask', 'coarse_mask', 'gt_mask') if self.classes is None else
            ('pred_sem_seg', 'coarse_sem_seg', 'gt_sem_seg'))
        for sample in data_samples:
            if refined not in sample:
                raise KeyError(f'BoundaryAccuracyMetric needs {refined}, which the model predicts')
            gt = (self._read(sample, target) if self.classes is None else
                     self.label(sample, refined).cpu().numpy())
            bands = boundary_bands(gt)
            scores = {}
            for name, key in (('', refined), ('coarse_', coarse)):
                if key not in sample:
                    continue
                labels = self._read(sample, key)
                if labels.shape != gt.shape:
                    raise ValueError(f'{key} of {sample.get("img_path")} is {list(labels.shape)}, '
                                     f'its {target} {list(gt.shape)}')
                scores[name] = (self._areas(labels, gt),
                                accuracy_in_bands(bands, labels, gt, self.ignored))
            self.results.append(scores)

    def _read(self, sample: dict, key: str) -> np.ndarray:
        """A bool mask or an integer label map, ``[H, W]``."""
        data = sample[key]['data'].squeeze(0).cpu().numpy()
        return foreground(data) if self.classes is None else data

    def _areas(self, prediction: np.ndarray, gt: np.ndarray) -> np.ndarray:
        """Intersection and union of each class, or of the object alone."""
        if self.classes is None:
            return class_areas(prediction, gt, 2)[:, 1:]
        return class_areas(prediction, gt, self.classes, self.ignored)

    def compute_metrics(self, results: list[dict[str, tuple[np.ndarray, float]]]
                        ) -> dict[str, float]:
        """Figures of all images, in percent; NaN where nothing was to be found."""
        figures = {}
        for name in results[0]:
            areas, accuracies = zip(*(scores[name] for scores in results), strict=True)
            intersection, union = np.sum(areas, axis=0)
            iou = intersection[union > 0] / union[union > 0]
            accuracies = np.array(accuracies)
            accuracies = accuracies[~np.isnan(accuracies)]
            for key, values in (('IoU', iou), ('mBA', accuracies)):
                mean = values.mean() if len(values) else np.nan
                figures[name + key] = round(float(mean) * 100, 2)
            figures['skipped'] = len(results) - len(accuracies)
        return figures
