"""Choose a selector's threshold: one pass over images, then every threshold is known.

Letters: ``M`` selected pixels, ``W`` pixels whose low-resolution class is wrong, ``T`` thresholds.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor

from mmsparse.labels import LabelCheck
from mmsparse.preprocessing import placements_of, stack_padded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmsparse.models.sparserefine.segmentor import SparseRefineSegmentor


def candidate_thresholds(highest: float) -> Tensor:
    """Zero, and every number of three significant digits from 1e-4 up to ``highest``, float64."""
    values, exponent = [0.0], -6
    while 100 * 10.0**exponent <= highest:
        values += [v for v in (round(digits * 10.0**exponent, -exponent) for digits in
                               range(100, 1000)) if v <= highest]
        exponent += 1
    return torch.tensor(values, dtype=torch.float64)


@dataclass
class ScoreCurve:
    """What every threshold would select, from pixel counts.

    Attributes:
        thresholds: float64 ``[T]``, increasing.
        right, wrong: int64 ``[T + 1]``, pixels by score whose low-resolution class is right or
            wrong; entry ``i`` counts scores above ``thresholds[i - 1]`` and up to ``[i]``.
        shares: by image, float32 ``[T]``, the share of its pixels with a greater score, with or
            without a label.
    """

    thresholds: Tensor
    right: Tensor
    wrong: Tensor
    shares: list[Tensor] = field(default_factory=list)

    @classmethod
    def empty(cls, thresholds: Tensor) -> ScoreCurve:
        """No pixel counted yet."""
        counts = torch.zeros(len(thresholds) + 1, dtype=torch.int64)
        return cls(thresholds, counts, counts.clone())

    def count(self, score: Tensor, wrong: Tensor, valid: Tensor) -> None:
        """Add pixels.

        Args:
            score: float32, any shape.
            wrong, valid: bool, of the same shape; invalid pixels count nowhere.
        """
        # float32 as in the selector's own comparison, or the edges would fall elsewhere
        bins = torch.bucketize(score, self.thresholds.to(score))
        for counts, mask in ((self.right, valid & ~wrong), (self.wrong, valid & wrong)):
            counts += torch.bincount(bins[mask].flatten(), minlength=len(counts)).cpu()

    def add_image(self, score: Tensor) -> None:
        """Note what every threshold would select of an image, from the scores of its pixels."""
        bins = torch.bucketize(score.flatten(), self.thresholds.to(score))
        counts = torch.bincount(bins, minlength=len(self.thresholds) + 1).cpu()
        self.shares.append(1 - (counts.cumsum(0)[:-1] / counts.sum()).float())

    def add(self, others: Sequence[ScoreCurve]) -> None:
        """Add what other processes have counted: images are dealt out one by one, first to this."""
        self.right = sum((other.right for other in others), self.right)
        self.wrong = sum((other.wrong for other in others), self.wrong)
        dealt = zip_longest(self.shares, *(other.shares for other in others))
        self.shares = [share for round_ in dealt for share in round_ if share is not None]

    def selected(self) -> tuple[Tensor, Tensor]:
        """``|M & W|`` and ``|M|`` by threshold, float64 ``[T]``."""
        above = [counts.flip(0).cumsum(0).flip(0)[1:].double() for counts in (self.wrong,
                                                                              self.right)]
        return above[0], above[0] + above[1]

    def recall(self) -> Tensor:
        """``|M & W| / |W|`` by threshold."""
        return self.selected()[0] / self.wrong.sum()

    def precision(self) -> Tensor:
        """``|M & W| / |M|`` by threshold, NaN where nothing is selected."""
        hit, chosen = self.selected()
        return hit / chosen

    def density(self) -> Tensor:
        """``|M| / |valid|`` by threshold."""
        return self.selected()[1] / (self.right.sum() + self.wrong.sum())

    def error_rate(self) -> float:
        """Share of wrong pixels."""
        return float(self.wrong.sum() / (self.right.sum() + self.wrong.sum()))

    def require_labels(self) -> None:
        """Refuse to choose where nothing was counted.

        Raises:
            ValueError: every pixel is ignored.
        """
        if not self.right.sum() + self.wrong.sum():
            raise ValueError('no pixel has a label: all are ignored')

    def for_recall(self, target: float) -> int:
        """Number of the largest threshold that still finds this share of the wrong pixels.

        Raises:
            ValueError: no threshold does, or no pixel is wrong or has a label.
        """
        self.require_labels()
        if not self.wrong.sum():
            raise ValueError('no low-resolution pixel is wrong: there is nothing to find')
        reached = (self.recall() >= target).nonzero()
        if not len(reached):
            raise ValueError(f'no threshold reaches a recall of {target}; at {self.thresholds[0]} '
                             f'it is {self.recall()[0]:.3f}')
        return int(reached[-1])

    def for_density(self, target: float) -> int:
        """Number of the smallest threshold that selects no more than this share of the pixels.

        Raises:
            ValueError: every threshold selects more, or no pixel has a label.
        """
        self.require_labels()
        density = self.density()
        reached = (density <= target).nonzero()
        if not len(reached):
            raise ValueError(f'no threshold selects as little as {target} of the pixels; at '
                             f'{self.thresholds[-1]:.3g} it is {density[-1]:.3f}')
        return int(reached[0])


@torch.no_grad()
def score_curve(model: SparseRefineSegmentor, batches: Iterable[dict],
                progress: Callable[[], None] = lambda: None) -> ScoreCurve:
    """Count a model's selection scores over images; nothing is refined.

    Where ``torch.distributed`` runs, every process counts its share, as mmengine's
    ``DefaultSampler`` with ``round_up=False`` deals it out, and all get the curve of all images.

    Args:
        model: in evaluation mode.
        batches: of a dataloader of test mode, with ground truth.
        progress: called after every batch.

    Raises:
        ValueError: ground truth is no label map of the model's classes and the picture's size
            (:class:`~mmsparse.labels.LabelCheck`).
    """
    check = LabelCheck(model.num_classes, model.ignore_index)
    curve = ScoreCurve.empty(candidate_thresholds(model.selector.highest_score))
    for batch in batches:
        batch = model.data_preprocessor(batch, False)
        inputs, samples = batch['inputs'], batch['data_samples']
        low = model.low_logits(inputs, samples)
        metas = [s.metainfo for s in samples]
        placements = placements_of(metas, inputs)
        valid = model.valid(inputs, low, placements)
        # Ground truth has the original size, the model may see another one. Plain 'nearest' would
        # move labels by half a pixel.
        labels = stack_padded([
            F.interpolate(check(s.gt_sem_seg.data, meta['ori_shape'], meta)[None, None].float(),
                          size=placement.size, mode='nearest-exact')[0, 0]
            for s, meta, placement in zip(samples, metas, placements, strict=True)],
            inputs, model.ignore_index)
        labeled = labels != model.ignore_index
        score = model.selector.score(inputs, low)
        curve.count(score, low.classes() != labels, labeled if valid is None else labeled & valid)
        for i, image in enumerate(score):
            curve.add_image(image if valid is None else image[valid[i]])
        progress()
    curves, checks = zip(*dist.all_gather_object((curve, check)), strict=True)
    curves[0].add(curves[1:])
    check.has_object = any(other.has_object for other in checks)
    check.suspect = next((other.suspect for other in checks if other.suspect), None)
    check.require_object()
    return curves[0]


def plot(curve: ScoreCurve, chosen: int, name: str) -> Figure:
    """Recall, precision and density over the threshold, and the scores of right and wrong pixels.

    Args:
        curve: of all images.
        chosen: number of the chosen threshold, marked.
        name: of the threshold.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout='constrained')
    lines, bars = figure.subplots(2, 1, sharex=True)
    x = curve.thresholds[1:].numpy()  # zero has no place on a logarithmic axis
    for label, values in (('recall', curve.recall()), ('precision', curve.precision()),
                          ('density', curve.density())):
        lines.plot(x, values[1:].numpy(), label=f'{label} {values[chosen]:.3f}')
    lines.set(xscale='log', ylim=(0, 1), title=f'{name} = {curve.thresholds[chosen]:.3g}')
    for label, counts in (('right', curve.right), ('wrong', curve.wrong)):
        share = counts[:-1].cumsum(0)[1:] / counts.sum()
        bars.plot(x, share.numpy(), label=f'{label} low-resolution pixels')
    bars.set(xlabel=name, ylim=(0, 1), ylabel='share with a score up to')
    for axes in (lines, bars):
        axes.axvline(float(curve.thresholds[chosen]), color='0.5', linewidth=1)
        axes.legend()
        axes.grid(alpha=0.3)
    return figure
