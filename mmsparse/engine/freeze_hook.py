"""Training some parts of a model only."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmsparse.registry import HOOKS

from .loading_hook import unwrapped


@HOOKS.register_module()
class FreezeHook(Hook):
    """Keep parts of the model as they are: only the mask head of a trained detector learns, say.

    Frozen weights get no gradients, which saves their backward pass, and frozen norms keep their
    statistics. With several GPUs set ``find_unused_parameters=True``, since the model is
    distributed before its weights are frozen.

    Args:
        modules: names of the parts in the model: ``['backbone', 'roi_head.bbox_head']``.

    Raises:
        ValueError: before training, if the model has no part of a name.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.names = tuple(modules)
        self.modules: list[nn.Module] = []

    def before_train(self, runner: Runner) -> None:
        """Find the parts, and take their weights out of the training."""
        model = unwrapped(runner.model)
        parts = dict(model.named_modules())
        for name in self.names:
            if name not in parts:
                children = [child for child, _ in model.named_children()]
                raise ValueError(f'FreezeHook.modules has {name!r}, which {type(model).__name__} '
                                 f'does not: its parts are {children} and theirs, as in '
                                 '"roi_head.bbox_head"')
        self.modules = [parts[name].requires_grad_(False) for name in self.names]

    def before_train_iter(self, *_: object, **__: object) -> None:
        """Take norms out of it too; the training loops call ``model.train()`` again and again."""
        for module in self.modules:
            module.eval()
