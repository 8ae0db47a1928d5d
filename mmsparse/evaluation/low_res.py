"""mIoU of the low-resolution prediction that a refinement started from."""
from __future__ import annotations

from collections.abc import Sequence

from mmseg.evaluation import IoUMetric

from mmsparse.registry import METRICS


@METRICS.register_module()
class LowResIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` of ``low_res_sem_seg`` instead of ``pred_sem_seg``.

    Its results are ``low_res/mIoU`` and so on. Arguments as in mmseg.
    """

    default_prefix = 'low_res'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch; samples of a model without refinement are an error.

        Raises:
            KeyError: a sample has no ``low_res_sem_seg``.
        """
        if any('low_res_sem_seg' not in sample for sample in data_samples):
            raise KeyError('LowResIoUMetric needs low_res_sem_seg, which SparseRefineSegmentor '
                           'predicts; remove the metric for other models')
        super().process(data_batch, [
            {**sample, 'pred_sem_seg': sample['low_res_sem_seg']} for sample in data_samples])
