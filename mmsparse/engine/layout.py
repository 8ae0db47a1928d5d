"""Maps with their channels innermost in memory, wherever what reads them can."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format


def channels_last(model: nn.Module) -> None:
    """Let convolutions compute, and pass on, maps with channels last. The function is the same.

    Torch reads maps of any layout. Kernels of mmcv, RoIAlign and deformable convolutions among
    them, take ``[B, C, H, W]`` to lie in memory in that order, and return nonsense for any other,
    without an error: their modules are given maps in that order, and convolutions inside them stay
    as they are.

    Args:
        model: of mmseg, mmdet or one's own, changed in place.
    """
    if any(base.__module__.startswith('mmcv.ops.') for base in type(model).__mro__):
        model.register_forward_pre_hook(_in_order, with_kwargs=True)
        return
    if isinstance(model, (nn.Conv2d, nn.ConvTranspose2d)):
        convert_conv2d_weight_memory_format(model, torch.channels_last)
    for child in model.children():
        channels_last(child)


def _in_order(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """A forward pre-hook."""
    return _contiguous(args), {name: _contiguous(value) for name, value in kwargs.items()}


def _contiguous(value: Any) -> Any:
    """The same, with every map in the order of its dimensions."""
    if isinstance(value, Tensor):
        return value.contiguous() if value.ndim == 4 else value
    return type(value)(map(_contiguous, value)) if type(value) in (list, tuple) else value
