"""Several models on the same images: accuracy, time, and how well the selector chose.

Letters: ``K`` classes, ``H, W`` full size.
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.evaluation import selection_counts
from mmsparse.hosts import ignore_index_of
from mmsparse.labels import LabelCheck


class Score(NamedTuple):
    """One model on all images.

    Attributes:
        miou: mean IoU in percent, over the classes that occur.
        small_iou: the same over the dataset's ``small_classes``.
        iou: IoU in percent by class name.
        milliseconds: median time per image.
        density: share of selected pixels; NaN without a selector, like the next two.
        recall: share of the low-resolution errors that were selected.
        precision: share of the selected pixels that were low-resolution errors.
    """

    miou: float
    small_iou: float
    iou: dict[str, float]
    milliseconds: float
    density: float
    recall: float
    precision: float


def predict(model: BaseModel, batch: dict) -> tuple[SegDataSample, float]:
    """One image through ``test_step``, normalization included: the result and its seconds."""
    with torch.no_grad():
        start = time.perf_counter()
        sample, = model.test_step(batch)
        return sample, time.perf_counter() - start


def class_areas(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Pixels per class of one image, ``[4, K]``: intersection, union, predicted, true.

    Args:
        pred, label: classes ``[H, W]``.
    """
    return torch.stack(IoUMetric.intersect_and_union(
        pred, label, num_classes, ignore_index)).double()


def compare(models: dict[str, nn.Module],
            dataloaders: dict[str, ConfigDict],
            on_sample: Callable[[str, int, dict, SegDataSample], None] | None = None
            ) -> dict[str, Score]:
    """Label the same images with every model, one at a time and in turns.

    In turns, so that a busy machine slows all alike; every model comes first equally often; the
    first image is labeled once before it is timed. Loading is not timed.

    Args:
        models: by name, in evaluation mode; pixels that they ignore count nowhere.
        dataloaders: by the same names; configs with ``batch_size=1`` over the same images, each
            with the pipeline that its model wants.
        on_sample: called with name, index, batch and result of every prediction.

    Returns:
        Scores by name.

    Raises:
        ValueError: the models ignore different labels, or ground truth is no label map of the
            dataset's classes and the picture's size (:class:`~mmsparse.labels.LabelCheck`).
    """
    ignored = {name: ignore_index_of(model) for name, model in models.items()}
    if len(set(ignored.values())) > 1:
        raise ValueError(f'models that are compared must share one ignore_index, got {ignored}')
    ignore_index = next(iter(ignored.values()))
    loaders = [Runner.build_dataloader(dataloaders[name]) for name in models]
    meta = loaders[0].dataset.metainfo
    names, k = list(models), len(meta['classes'])
    check = LabelCheck(k, ignore_index)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    areas = {name: torch.zeros(4, k, dtype=torch.float64) for name in names}
    counts = {name: torch.zeros(4, dtype=torch.float64) for name in names}
    for index, loaded in enumerate(zip(*loaders, strict=True)):
        batches = dict(zip(names, loaded, strict=True))
        first = index % len(names)
        for name in names[first:] + names[:first]:
            if index == 0:
                predict(models[name], batches[name])
            sample, duration = predict(models[name], batches[name])
            seconds[name].append(duration)
            label = check(sample.gt_sem_seg.data, sample.pred_sem_seg.shape, sample.metainfo).cpu()
            areas[name] += class_areas(sample.pred_sem_seg.data[0].cpu(), label, k, ignore_index)
            if 'selected' in sample:
                counts[name] += selection_counts(
                    sample.selected.data[0].cpu(), sample.low_res_sem_seg.data[0].cpu(), label,
                    ignore_index)
            if on_sample is not None:
                on_sample(name, index, batches[name], sample)
    return {name: score(areas[name], counts[name], seconds[name], meta) for name in names}


def score(areas: Tensor, counts: Tensor, seconds: list[float], meta: dict) -> Score:
    """Figures from sums over all images, as the two functions above count them."""
    iou = IoUMetric.total_area_to_metrics(*areas)['IoU'] * 100
    small = [meta['classes'].index(name) for name in meta['small_classes']]
    hit, chosen, wrong, valid = counts.tolist()
    return Score(
        miou=mean_known(iou.tolist()),
        small_iou=mean_known(iou[small].tolist()),
        iou=dict(zip(meta['classes'], iou.tolist(), strict=True)),
        milliseconds=statistics.median(seconds) * 1000,
        density=ratio(chosen, valid),
        recall=ratio(hit, wrong),
        precision=ratio(hit, chosen))


def mean_known(values: list[float]) -> float:
    """Mean of what is not NaN (a class that occurs nowhere); NaN if nothing is left."""
    known = [v for v in values if v == v]
    return sum(known) / len(known) if known else float('nan')


def ratio(part: float, whole: float) -> float:
    """``part / whole``, NaN for an empty whole."""
    return part / whole if whole else float('nan')
