"""Pictures and figures of a refinement while a model is validated or tested."""
from __future__ import annotations

import os.path as osp
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.structures import SegDataSample

from mmsparse.pictures import decode
from mmsparse.registry import HOOKS


@HOOKS.register_module()
class RefinementVisualizationHook(SegVisualizationHook):
    """mmseg's visualization hook, and how many pixels the selector takes.

    With ``visualizer=dict(type='mmsparse.RefinementVisualizer')`` the stock hook's pictures are
    panels. This one also notes the density (share of selected pixels) of **every** image, and
    after each validation or test epoch writes to all backends of the visualizer, at the runner's
    iteration: the scalars ``selector/density_mean``, ``_p95`` and ``_max``, and, if ``draw``, a
    histogram named ``val_density`` or ``test_density``. In several processes the first one writes
    for all. Without a sample that holds ``selected`` it is the stock hook, except that pictures are
    drawn as stored (see :mod:`mmsparse.pictures`), the way the model saw them.

    Args:
        draw: write pictures; the scalars are always written.
        interval: draw the images of every ``interval``-th batch.
        **kwargs: as mmseg's ``SegVisualizationHook``.
    """

    def __init__(self, draw: bool = False, interval: int = 50, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # "... will not take effect", which is not true here
            warnings.filterwarnings('ignore', message='The draw is False')
            super().__init__(draw=draw, interval=interval, **kwargs)
        self._densities: list[float] = []

    # They call ``_after_iter``. The hook of mmseg's fork has two of its own, which do not.
    after_val_iter = Hook.after_val_iter
    after_test_iter = Hook.after_test_iter

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Forget the last epoch, and one that an error ended."""
        if mode != 'train':
            self._densities = []

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                    outputs: Sequence[SegDataSample] | None = None, mode: str = 'val') -> None:
        """Draw, and note the densities."""
        if mode == 'train':
            return
        if self.draw and self.every_n_inner_iters(batch_idx, self.interval):
            for sample in outputs or ():
                path = sample.img_path
                image = decode(get(path, backend_args=self.backend_args), path,
                               'color_ignore_orientation')
                self._visualizer.add_datasample(
                    f'{mode}_{osp.basename(path)}', np.ascontiguousarray(image[..., ::-1]),
                    data_sample=sample, show=self.show, wait_time=self.wait_time,
                    step=training_iteration(runner))
        self._densities += [density(sample) for sample in outputs or () if 'selected' in sample]

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Write the figures of all processes."""
        if mode == 'train':
            return
        parts = all_gather_object(self._densities)
        if not is_main_process():
            return
        loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
        densities = in_dataset_order(parts, len(loader.dataset))
        if not densities:
            return
        figures = summary(densities)
        runner.visualizer.add_scalars(
            {f'selector/density_{name}': value for name, value in figures.items()},
            step=training_iteration(runner))
        if self.draw:
            runner.visualizer.add_image(
                f'{mode}_density', histogram(densities, figures), step=training_iteration(runner))


def training_iteration(runner: Runner) -> int:
    """The iteration of the training; 0 in a test on its own.

    There ``runner.iter`` would build the training loop, and with it the training set, which need
    not be on the machine.
    """
    return runner.iter if isinstance(runner._train_loop, BaseLoop) else 0


def density(sample: SegDataSample) -> float:
    """Share of the selected pixels of one image."""
    return float(sample.selected.data.float().mean())


def in_dataset_order(parts: Sequence[Sequence[float]], size: int) -> list[float]:
    """What several processes have, put together as mmengine's sampler dealt the images out.

    Process ``r`` of ``P`` holds images ``r, r + P, ...``; those past ``size`` are repetitions that
    give all processes equally many.
    """
    dealt = [value for turn in zip_longest(*parts) for value in turn if value is not None]
    return dealt[:size]


def summary(densities: Sequence[float]) -> dict[str, float]:
    """Mean, 95th percentile and maximum."""
    return dict(mean=float(np.mean(densities)), p95=float(np.quantile(densities, .95)),
                max=float(np.max(densities)))


def histogram(densities: Sequence[float], marks: dict[str, float]) -> np.ndarray:
    """Number of images by density, with three values marked; uint8 RGB ``[400, 700, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays as it is
    from matplotlib.ticker import MaxNLocator

    canvas = FigureCanvasAgg(Figure(figsize=(7, 4), dpi=100, layout='constrained'))
    axes = canvas.figure.add_subplot()
    percent = np.asarray(densities) * 100
    width = 1 if percent.max() < 30 else 4  # whole percents, so that epochs can be compared
    axes.hist(percent, bins=np.arange(0, percent.max() + width + 1, width).tolist(),
              color='#3b7dd8')
    for style, (name, value) in zip(('-', '--', ':'), marks.items(), strict=True):
        axes.axvline(value * 100, color='#303030', linestyle=style, label=f'{name} {value:.1%}')
    axes.set(xlabel='selected pixels of an image, %', ylabel='images',
             title=f'Density over {len(densities)} images')
    axes.yaxis.set_major_locator(MaxNLocator('auto', steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
