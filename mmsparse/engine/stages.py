"""Where the time of a refining model goes: its stages, timed from outside.

The model only names its stages; nothing in it knows of clocks.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import nn


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


class StageClock:
    """Time the stages of every ``predict`` of a model, while used as a context manager.

    The device is synchronized around each stage, so a total taken inside is larger than one taken
    without the clock.

    Args:
        model: with ``STAGES``, a dict from the title of a stage to the names of the methods and
            submodules (dotted) that make it up; they must not call each other.

    Attributes:
        milliseconds: title to one entry per call of ``predict``; 0 for a stage that did not run.

    Raises:
        TypeError: the model has no ``STAGES``.
    """

    def __init__(self, model: nn.Module) -> None:
        if not hasattr(model, 'STAGES'):
            raise TypeError(f'{type(model).__name__} names no STAGES to time; '
                            'SparseRefineSegmentor does')
        self.model = model
        self.device = next(model.parameters()).device
        self.milliseconds: dict[str, list[float]] = {title: [] for title in model.STAGES}
        self._wrapped: list[tuple[Any, str, Callable | None]] = []

    def __enter__(self) -> StageClock:
        for title, names in self.model.STAGES.items():
            for name in names:
                self._wrap(name, lambda ms, title=title: self._add(title, ms))
        predict = self.model.predict

        def timed_predict(*args, **kwargs):
            for entries in self.milliseconds.values():
                entries.append(0.0)
            return predict(*args, **kwargs)

        self._replace(self.model, 'predict', timed_predict)
        return self

    def __exit__(self, *_) -> None:
        for owner, name, before in reversed(self._wrapped):
            delattr(owner, name)  # the class's own is visible again
            if before is not None:
                setattr(owner, name, before)
        self._wrapped.clear()

    def _add(self, title: str, milliseconds: float) -> None:
        if self.milliseconds[title]:  # else called outside of predict
            self.milliseconds[title][-1] += milliseconds

    def _wrap(self, name: str, add: Callable[[float], None]) -> None:
        """Time a submodule's ``forward`` or a method."""
        target = attrgetter(name)(self.model)
        owner, attribute = (target, 'forward') if isinstance(target, nn.Module) else (
            self.model, name)
        original = getattr(owner, attribute)

        def timed(*args, **kwargs):
            synchronize(self.device)
            start = time.perf_counter()
            result = original(*args, **kwargs)
            synchronize(self.device)
            add((time.perf_counter() - start) * 1000)
            return result

        self._replace(owner, attribute, timed)

    def _replace(self, owner: Any, name: str, function: Callable) -> None:
        """Shadow a method on the instance."""
        self._wrapped.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, function)
