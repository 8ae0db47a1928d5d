"""mIoU before a refinement, and the most that it can become where the selector looked."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmsparse.registry import METRICS

from .labeled import Labeled


@METRICS.register_module()
class LowResIoUMetric(Labeled, IoUMetric):
    """mmseg's ``IoUMetric`` of ``low_res_sem_seg`` instead of ``pred_sem_seg``.

    Its results are ``low_res/mIoU`` and so on.

    Args:
        ignore_index: label that counts nowhere; ``None`` is the model's. Give mmseg's ``IoUMetric``
            beside it the same: that one takes 255 for granted.
        **kwargs: as mmseg's ``IoUMetric``.
    """

    default_prefix = 'low_res'

    def __init__(self, *, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__(ignore_index=ignore_index, **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch; samples of a model without refinement are an error.

        Raises:
            KeyError: a sample has no ``low_res_sem_seg``.
            ValueError: ground truth is no label map.
        """
        if any('low_res_sem_seg' not in sample for sample in data_samples):
            raise KeyError(f'{type(self).__name__} needs low_res_sem_seg, which '
                           'SparseRefineSegmentor predicts; remove the metric for other models')
        if not self.format_only:
            for sample in data_samples:
                self.label(sample, 'low_res_sem_seg')
        super().process(data_batch, [
            {**sample, 'pred_sem_seg': dict(data=self.scored(sample))} for sample in data_samples])

    def scored(self, sample: dict) -> Tensor:
        """The class map that is scored, ``[1, H, W]``."""
        return sample['low_res_sem_seg']['data']


@METRICS.register_module()
class SelectionLimitIoUMetric(LowResIoUMetric):
    """mIoU of a refiner that is right wherever the selector looked, ``limit/mIoU`` and so on.

    Between ``low_res/mIoU`` and it lies what refinement can gain with this selection: a refiner
    that stays far below it has to learn more, one that is near it needs more pixels.

    Args:
        **kwargs: as :class:`LowResIoUMetric`.
    """

    default_prefix = 'limit'

    def scored(self, sample: dict) -> Tensor:
        """The truth where the selector looked, elsewhere the low-resolution classes."""
        low = super().scored(sample)
        truth = sample['gt_sem_seg']['data'].to(low)
        return torch.where(sample['selected']['data'].bool(), truth, low)
