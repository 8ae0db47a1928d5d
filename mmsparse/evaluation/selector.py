"""How well a selector chose its pixels.

Letters: ``M`` selected pixels, ``W`` pixels whose low-resolution class is wrong.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmsparse.registry import METRICS

from .labeled import Labeled


def selection_counts(selected: Tensor, low: Tensor, label: Tensor, ignore_index: int = 255
                     ) -> Tensor:
    """``[|M & W|, |M|, |W|, |valid|]`` of one image, float64; ignored pixels count nowhere.

    Args:
        selected: bool ``[H, W]``.
        low, label: low-resolution and true classes, ``[H, W]``.
    """
    valid = label != ignore_index
    wrong = (low != label) & valid
    chosen = selected & valid
    return torch.stack([(chosen & wrong).sum(), chosen.sum(), wrong.sum(), valid.sum()]).double()


@METRICS.register_module()
class SelectorMetric(Labeled, BaseMetric):
    """Recall, precision and density of the selection over all images, in percent.

    Source: SparseRefine (ECCV 2024), supplement Table 1: recall ``|M & W| / |W|``, precision
    ``|M & W| / |M|``, density ``|M| / |valid|``. With a budget also the mean ``threshold`` that it
    amounted to. Quantities of an empty whole (no errors at all) are NaN.

    Args:
        ignore_index: label that counts nowhere; ``None`` is the model's.
        collect_device, prefix: as in mmengine.
    """

    default_prefix = 'selector'

    def __init__(self, *, ignore_index: int | None = None, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        Raises:
            KeyError: a sample has no ``selected``.
            ValueError: ground truth is no label map.
        """
        for sample in data_samples:
            if 'selected' not in sample:
                raise KeyError('SelectorMetric needs the field selected, which '
                               'SparseRefineSegmentor predicts; remove it for other models')
            label = self.label(sample, 'low_res_sem_seg')
            counts = selection_counts(
                sample['selected']['data'].squeeze(0).to(label.device),
                sample['low_res_sem_seg']['data'].squeeze(0).to(label), label, self.ignored)
            self.results.append((counts.cpu(), sample.get('selection_threshold')))

    def compute_metrics(self, results: list[tuple[Tensor, float | None]]) -> dict[str, float]:
        """Figures of all images, in percent (the threshold in its own unit)."""
        hit, chosen, wrong, valid = torch.stack([counts for counts, _ in results]).sum(0)
        figures = dict(recall=hit / wrong, precision=hit / chosen, density=chosen / valid)
        figures = {name: round(float(value) * 100, 2) for name, value in figures.items()}
        thresholds = [t for _, t in results if t is not None]
        if thresholds:
            figures['threshold'] = sum(thresholds) / len(thresholds)
        return figures
