"""Training in bfloat16 on any device, CPUs included."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmsparse.precision import takes_bfloat16
from mmsparse.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper`` with the forward pass autocast to bfloat16.

    mmengine's ``AmpOptimWrapper`` refuses to train on a CPU. Bfloat16 has the range of float32, so
    no loss is scaled. It is about 1.5 times as fast on CPUs with matrix units (AMX); those without
    instructions for bfloat16 compute in float32, with a warning. Weights and optimizer stay
    float32.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """What a forward pass for training runs in."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(
                device, torch.bfloat16, enabled=takes_bfloat16(device)):
            yield
