"""What mmengine's runner does not say of the checkpoint that it loads."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmsparse.checkpoint import CheckpointError, load_state


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without what distributes or augments it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model


class LoadingHook(Hook):
    """Refuse a checkpoint that does not fit, or say in one line what did not.

    mmengine loads what fits and warns about the rest, one line for each kind of misfit, with all
    its keys. What counts as a misfit is said at :func:`mmsparse.checkpoint.load_weights`.

    Args:
        source: what is loaded, for the message.
        strict: refuse it, for inference; else, for training, the line follows all that is logged
            of the loading.
    """

    priority = 'VERY_HIGH'

    def __init__(self, source: str, strict: bool) -> None:
        self.source = source
        self.strict = strict
        self.misfit = ''

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load into the model that the runner wraps; what the runner does next changes nothing.

        Raises:
            CheckpointError: it does not fit, and has to.
        """
        meta = checkpoint.get('meta')
        if isinstance(meta, dict):
            # Text of a config, in files of mmcv 1.x: mmengine runs it as Python when it resumes.
            meta.pop('config', None)
        model = unwrapped(runner.model)
        self.misfit = load_state(model, checkpoint, self.source)
        if self.misfit and self.strict:
            raise CheckpointError(f'{self.source} does not fit the '
                                  f'{type(model).__name__} of the config, weights are '
                                  f'{self.misfit}')

    def before_train(self, runner: Runner) -> None:
        """The line, of level ERROR, which mmengine prints in red."""
        if self.misfit:
            runner.logger.error(f'NOT ALL OF {self.source} WAS LOADED: weights are '
                                f'{self.misfit}. Those of the config that are missing or of '
                                'another shape start as without it.')
