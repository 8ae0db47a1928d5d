"""Multiply-accumulates of a function; with parameters, of a model without computing."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmsparse.models.swiftnet.encoders import SwiftNetPyramidBackbone, SwiftNetResNet
from mmsparse.preprocessing import batch_metas

from .config import read_config


@torch.no_grad()
def dense_macs(function: Callable[[], Any]) -> int:
    """Multiply-accumulates of the convolutions and matrix products that a function runs.

    Counted by torch's own counter; operators it does not know (deformable attention) count 0.
    """
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


def pretrained_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that start from a checkpoint, as far as ``init_cfg`` says so.

    A ``SwiftNetResNet`` may keep some parts of it only; the norms of a pyramid's levels start with
    its encoder.
    """
    names: set[str] = set()
    for name, module in model.named_modules():
        cfg = module.init_cfg if isinstance(module, BaseModule) else None
        if not isinstance(cfg, dict) or cfg.get('type') != 'Pretrained':
            continue
        prefixes = module.pretrained_prefixes() if isinstance(module, SwiftNetResNet) else ('',)
        dot = f'{name}.' if name else ''
        names |= {dot + key for key, _ in module.named_parameters() if key.startswith(prefixes)}
    for name, module in model.named_modules():
        if isinstance(module, SwiftNetPyramidBackbone):
            dot = f'{name}.' if name else ''
            for child, source in module.PRETRAINED_WITH.items():
                if any(key.startswith(f'{dot}{source}.') for key in names):
                    names |= {f'{dot}{child}.{key}'
                              for key, _ in module.get_submodule(child).named_parameters()}
    return names


@torch.no_grad()
def complexity(config: str, size: tuple[int, int], cfg_options: dict | None = None
               ) -> dict[str, int]:
    """Count for one image.

    Args:
        config: file of an mmseg model.
        size: ``(H, W)``.
        cfg_options: settings that override those of the config.

    Returns:
        ``MACs`` of convolutions and matrix products, twice that as ``FLOPs``, and ``parameters``,
        of them ``pretrained`` and ``random``.

    Raises:
        NotImplementedError: the model needs values, not only shapes, to compute.
    """
    cfg = read_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with torch.device('meta'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
        inputs = torch.empty(1, 3, *size)
    try:
        macs = dense_macs(lambda: model.encode_decode(inputs, batch_metas(inputs)))
    except (NotImplementedError, RuntimeError) as error:
        raise NotImplementedError(
            f'{type(model).__name__} cannot be counted without computing; `mim run mmsparse '
            f'benchmark` counts while it runs ({str(error).splitlines()[0]})') from error
    total = {name: p.numel() for name, p in model.named_parameters()}
    pretrained = sum(total[name] for name in pretrained_parameters(model))
    parameters = sum(total.values())
    return {'MACs': macs, 'FLOPs (2 x MACs)': 2 * macs, 'parameters': parameters,
            'pretrained': pretrained, 'random': parameters - pretrained}
