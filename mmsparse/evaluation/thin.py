"""How well thin structures are found: vessels, cables, cracks, roads from above."""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmsparse.registry import METRICS

from .labeled import Labeled


def thick_parts(mask: np.ndarray, width: float) -> np.ndarray:
    """The parts of a mask that are wider than ``width`` pixels.

    A pixel belongs to one if a disc of that width fits into the mask and covers it, by the distance
    transform of the mask and that of the discs' centers.

    Args:
        mask: bool ``[H, W]``. What its frame cuts is not thin for that.
        width: in pixels.

    Returns:
        bool ``[H, W]``.
    """
    # A strip of n pixels is at most (n + 1) // 2 from the nearest pixel beside it.
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    centers = inside > width / 2
    if not centers.any():
        return centers
    away = cv2.distanceTransform((~centers).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return mask & (away <= width / 2)


def thin_counts(pred: np.ndarray, label: np.ndarray, width: float, ignore_index: int = 255
                ) -> Tensor:
    """Intersection, prediction and truth, of all structures and of thin ones: float64 ``[2, 3]``.

    Thin ones are counted away from thick ones: pixels of these, and those nearer to them than
    ``width``, count nowhere.

    Args:
        pred, label: classes ``[H, W]``; every class but 0 is a structure.
        width: in pixels.
        ignore_index: label that counts nowhere.
    """
    known = label != ignore_index
    found, true = (pred > 0) & known, (label > 0) & known
    thick = thick_parts(true, width)
    away = known
    if thick.any():
        away = known & (cv2.distanceTransform((~thick).astype(np.uint8), cv2.DIST_L2,
                                              cv2.DIST_MASK_PRECISE) > width)
    return torch.tensor([[(found & true & part).sum(), (found & part).sum(), (true & part).sum()]
                         for part in (known, away)], dtype=torch.float64)


@METRICS.register_module()
class ThinStructureMetric(Labeled, BaseMetric):
    """Dice of all structures together, and IoU of the thin ones, before and after refinement.

    A structure is what has any class but the first, whichever. Results, in percent over all images:
    ``structure/dice``, ``structure/thin_iou``; for a refining model also
    ``structure/low_res_dice`` ... of the prediction that it started from.

    Args:
        width: up to which a structure is thin, in pixels.
        ignore_index: label that counts nowhere; ``None`` is the model's.
        collect_device, prefix: as in mmengine.

    Raises:
        ValueError: the width is not positive.
    """

    default_prefix = 'structure'

    def __init__(self, *, width: float = 8, ignore_index: int | None = None,
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if width <= 0:
            raise ValueError(f'ThinStructureMetric.width must be positive, got {width!r}')
        self.width = width
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            ValueError: ground truth is no label map.
        """
        fields = {'': 'pred_sem_seg', 'low_res_': 'low_res_sem_seg'}
        for sample in data_samples:
            label = self.label(sample, 'pred_sem_seg').cpu().numpy()
            self.results.append({
                name: thin_counts(sample[field]['data'].squeeze(0).cpu().numpy(), label,
                                  self.width, self.ignored)
                for name, field in fields.items() if field in sample})

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """Figures of all images, in percent; NaN where there is no structure."""
        figures = {}
        for name in results[0]:
            everything, thin = torch.stack([counts[name] for counts in results]).sum(0)
            both, found, true = everything
            figures[f'{name}dice'] = float(200 * both / (found + true))
            both, found, true = thin
            figures[f'{name}thin_iou'] = float(100 * both / (found + true - both))
        return figures
