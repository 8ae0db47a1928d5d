"""Training progress for a person at a terminal."""
from __future__ import annotations

import atexit
import sys

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmsparse.registry import HOOKS


def progress_display(*, disable: bool = False) -> Progress:
    """A progress display on the terminal, even while ``sys.stdout`` is redirected to a log.

    Args:
        disable: show nothing, as in all processes but one.
    """
    return Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn('left:'), TimeRemainingColumn(), TextColumn('{task.fields[note]}'),
        console=Console(file=sys.__stdout__), disable=disable)


@HOOKS.register_module()
class RichProgressHook(Hook):
    """A progress bar with the loss for every training, beside mmengine's log.

    Args:
        description: what the bar is called.
    """

    priority = 'VERY_LOW'

    def __init__(self, *, description: str = 'Train') -> None:
        self.description = description

    def before_train(self, runner: Runner) -> None:
        """Show the bar."""
        self.progress = progress_display()
        self.progress.start()
        atexit.register(self.progress.stop)  # gives the cursor back if training fails
        self.task = self.progress.add_task(self.description, total=runner.max_iters, note='')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Advance it."""
        note = f'loss {float(outputs["loss"]):.2f}' if outputs else ''
        self.progress.update(self.task, completed=runner.iter + 1, note=note)

    def after_train(self, runner: Runner) -> None:
        """Leave it finished on the screen."""
        self.progress.stop()
