"""How long a refining model takes by the share of pixels that it refines, and what that allows.

Letters: ``I`` images, ``T`` thresholds.
"""
from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .benchmark import predict_time
from .calibration import ScoreCurve

if TYPE_CHECKING:
    from mmsparse.models.sparserefine.segmentor import SparseRefineSegmentor

# Mean shares of the pixels at which time is measured; 0 is the low-resolution pass alone.
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class TimeModel:
    """Time of ``predict`` per image, linear between shares that were measured, and beyond the last.

    Attributes:
        shares: of the pixels, increasing, at least two.
        milliseconds: at each.
    """

    shares: Sequence[float]
    milliseconds: Sequence[float]

    def at(self, share: Tensor) -> Tensor:
        """Expected milliseconds at shares of any shape, float64."""
        (x0, x1), (y0, y1) = self.shares[-2:], self.milliseconds[-2:]
        far = 1 + x1  # past every share: np.interp does not extrapolate
        x, y = [*self.shares, far], [*self.milliseconds, y1 + (y1 - y0) / (x1 - x0) * (far - x1)]
        return torch.from_numpy(np.interp(share.double().numpy(), x, y))

    def choose(self, curve: ScoreCurve, budget: float) -> tuple[int, float, float]:
        """The smallest threshold with which 95 % of the images are expected to stay in time.

        Args:
            curve: with the shares of single images.
            budget: milliseconds per image.

        Returns:
            Its number, and the expected median and 95th percentile of the milliseconds with it.

        Raises:
            ValueError: no threshold keeps the budget.
        """
        times = self.at(torch.stack(curve.shares))  # [I, T]
        p50, p95 = (times.quantile(q, 0) for q in (0.5, 0.95))
        kept = (p95 <= budget).nonzero()
        if not len(kept):
            raise ValueError(f'no threshold keeps a budget of {budget:g} ms: with next to nothing '
                             f'refined an image takes {p95.min():.0f} ms')
        number = int(kept[0])
        return number, float(p50[number]), float(p95[number])


@torch.no_grad()
def measure_times(model: SparseRefineSegmentor, curve: ScoreCurve, batches: Sequence[dict],
                  repeats: int = 3, progress: Callable[[], None] = lambda: None) -> TimeModel:
    """Time ``predict`` on real images at thresholds that refine ``SHARES`` of the pixels.

    Args:
        model: in evaluation mode; its threshold is put back.
        curve: of the images that thresholds are chosen by.
        batches: some images, one each, as a dataloader of test mode gives them.
        repeats: timed passes of every image and threshold, the fastest counts.
        progress: called after every image and threshold.
    """
    device = next(model.parameters()).device
    prepared = [model.data_preprocessor(batch, False) for batch in batches]
    predict_time(model, prepared[0], device)  # allocates and compiles
    mean = torch.stack(curve.shares).mean(0)
    measured: dict[float, float] = {}
    before = model.selector.threshold
    try:
        for share in SHARES:
            reached = (mean <= share).nonzero()
            threshold = float(curve.thresholds[int(reached[0]) if len(reached) else -1])
            model.selector.threshold = threshold if share else model.selector.highest_score
            times, shares = [], []
            for batch in prepared:
                passes = [predict_time(model, batch, device) for _ in range(repeats)]
                times.append(min(milliseconds for milliseconds, _ in passes))
                shares.append(float(passes[0][1][0].selected.data.float().mean()))
                progress()
            measured[statistics.mean(shares)] = statistics.mean(times)
    finally:
        model.selector.threshold = before
    shares = sorted(measured)
    return TimeModel(shares, [measured[share] for share in shares])
