"""How much a head with sparse inference computed, in the log of each validation and test."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsparse import models  # of which a name imports its method when used, not before
from mmsparse.registry import HOOKS

from .refinement_hook import training_iteration


@HOOKS.register_module()
class ActiveCellsHook(Hook):
    """Log the mean share of active cells, by stride, over the batches of this process.

    For ``mmsparse.SpecializeFuseHead`` with ``fusion=dict(sparse=True)``; silent for any other
    head. Writes ``active/s16`` ... in percent to the log and to all backends of the visualizer.
    With test-time augmentation, the last view of each image counts.
    """

    def __init__(self) -> None:
        self._shares: list[dict[int, float]] = []

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Forget the last epoch, and one that an error ended."""
        self._shares = []

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                    outputs: Sequence | None = None, mode: str = 'train') -> None:
        """Note the shares of one batch."""
        if mode == 'train':
            return
        for head in runner.model.modules():
            if isinstance(head, models.SpecializeFuseHead) and head.active_share:
                self._shares.append(dict(head.active_share))

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Write the means."""
        if mode == 'train' or not self._shares:
            return
        figures = {f'active/s{stride}': 100 * sum(s[stride] for s in self._shares) / len(
            self._shares) for stride in self._shares[0]}
        runner.visualizer.add_scalars(figures, step=training_iteration(runner))
        runner.logger.info(f'{mode}, cells computed, %: ' + '  '.join(
            f'{name}: {value:.2f}' for name, value in figures.items()))
