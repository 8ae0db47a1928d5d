"""Where the time of SparseRefine goes: its stages, timed from outside.

Nothing in the model knows of clocks.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.models.sparserefine.segmentor import SparseRefineSegmentor

from .machine import synchronize

# Title: the methods and submodules (dotted) of the model that make up the stage, in the order of
# the data's way. They must not call each other.
STAGES = {
    'low-resolution pass': ('low_logits',),
    'selection': ('selector',),
    'gathering': ('gather',),
    'U-Net': ('decode_head.extractor',),
    'ensembling': ('decode_head.classifier', 'decode_head.ensembler'),
    'write-back': ('write_back',),
}


class StageClock:
    """Time the ``STAGES`` of every ``predict`` of a model, while used as a context manager.

    The device is synchronized around each stage, so a total taken inside is larger than one taken
    without the clock.

    Args:
        model: whose stages are timed.

    Attributes:
        milliseconds: title to one entry per call of ``predict``; 0 for a stage that did not run.

    Raises:
        TypeError: the model is no ``SparseRefineSegmentor``.
    """

    def __init__(self, model: SparseRefineSegmentor) -> None:
        if not isinstance(model, SparseRefineSegmentor):
            raise TypeError('StageClock times the stages of a SparseRefineSegmentor, got '
                            f'{type(model).__name__}')
        self.model = model
        self.device = next(model.parameters()).device
        self.milliseconds: dict[str, list[float]] = {title: [] for title in STAGES}
        self._wrapped: list[tuple[Any, str, Callable | None]] = []

    def __enter__(self) -> StageClock:
        for title, names in STAGES.items():
            for name in names:
                self._wrap(name, partial(self._add, title))
        predict = self.model.predict

        def timed_predict(*args: Any, **kwargs: Any) -> list[SegDataSample]:
            for entries in self.milliseconds.values():
                entries.append(0.0)
            return predict(*args, **kwargs)

        self._replace(self.model, 'predict', timed_predict)
        return self

    def __exit__(self, *_: object) -> None:
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

        def timed(*args: Any, **kwargs: Any) -> Any:
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
