"""IoU by the size that a class has in the image. Letters: ``K`` classes, ``S`` sizes."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmsparse.registry import METRICS

from .labeled import Labeled

SIZES = ('small', 'medium', 'large')


def areas_by_size(pred: Tensor, label: Tensor, num_classes: int, limits: tuple[float, float],
                  ignore_index: int = 255) -> Tensor:
    """Intersection and union of one image, each class in the row of its size.

    Args:
        pred, label: classes ``[H, W]``.
        limits: shares of the labeled frame at which a class is no longer small, no longer medium.

    Returns:
        float64 ``[2, S, K]``. A class that is not in the label has no size: it counts nowhere,
        also where it is predicted.
    """
    intersection, union, _, area = (
        a.double() for a in IoUMetric.intersect_and_union(pred, label, num_classes, ignore_index))
    share = area / area.sum().clamp(min=1)
    size = torch.bucketize(share, share.new_tensor(limits), right=True)
    row = torch.nn.functional.one_hot(size, len(SIZES)).T * (area > 0)
    return torch.stack([intersection * row, union * row])


@METRICS.register_module()
class IoUBySizeMetric(Labeled, BaseMetric):
    """mIoU over small, medium and large instances of classes, before and after refinement.

    A class of one image is small, medium or large by the share of the frame that it covers there;
    its intersections and unions are summed per size over all images. Results are ``size/small``
    ... and, for a refining model, ``size/low_res_small`` ... of the prediction it started from.
    The idea is that of SparseRefine (ECCV 2024), supplement Fig. 3; the limits are ours.

    Args:
        limits: shares of the frame, ``0 < first < second < 1``, below the first a class is small.
        ignore_index: label that counts nowhere; ``None`` is the model's.
        collect_device, prefix: as in mmengine.

    Raises:
        ValueError: the limits are not two increasing shares.
    """

    default_prefix = 'size'

    def __init__(self, *, limits: tuple[float, float] = (0.01, 0.1),
                 ignore_index: int | None = None, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if len(limits) != 2 or not 0 < limits[0] < limits[1] < 1:
            raise ValueError('IoUBySizeMetric.limits must be two increasing shares of the frame '
                             f'in (0, 1), got {limits!r}')
        self.limits = limits[0], limits[1]
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            ValueError: ground truth is no label map, or the dataset names no classes.
        """
        num_classes = self.num_classes()
        if num_classes is None:
            raise ValueError('IoUBySizeMetric needs the classes of the dataset: its metainfo has '
                             'no `classes`')
        for sample in data_samples:
            label = self.label(sample, 'pred_sem_seg')
            fields = {'': 'pred_sem_seg', 'low_res_': 'low_res_sem_seg'}
            self.results.append({
                name: areas_by_size(sample[field]['data'].squeeze(0).to(label), label,
                                    num_classes, self.limits, self.ignored).cpu()
                for name, field in fields.items() if field in sample})

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """mIoU in percent by size, over the classes that have it; NaN if none has."""
        figures: dict[str, float] = {}
        for name in results[0]:
            intersection, union = torch.stack([areas[name] for areas in results]).sum(0)
            iou = (intersection / union * 100).nanmean(1)  # 0 / 0: the class never had the size
            figures |= {f'{name}{size}': round(float(value), 2)
                        for size, value in zip(SIZES, iou, strict=True)}
        return figures
