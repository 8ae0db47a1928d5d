"""A model from a config and a checkpoint."""
from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from mmsparse import zoo
from mmsparse.checkpoint import load_weights

from .config import override, read_config


def load_model(config: str | Path | Config,
               checkpoint: str | Path | None,
               device: torch.device | str,
               cfg_options: dict | None = None) -> BaseModel:
    """A model in evaluation mode; random weights without a checkpoint, nothing is fetched.

    Args:
        config: as for :func:`~mmsparse.engine.config.read_config`, or a config, which stays as it
            is.
        checkpoint: file, URL or ``'mmsparse://NAME'``; ``None`` takes the weights of a config of
            the zoo, and leaves those of another one random.
        device: where the model goes.
        cfg_options: settings that override those of the config, by dotted name.

    Returns:
        The model, with ``cfg`` and ``dataset_meta`` (names and colors of the classes, if the
        checkpoint holds them, else ``None``).

    Raises:
        FileNotFoundError, ValueError, CheckpointError: as ``read_config`` and
            :func:`mmsparse.checkpoint.load_weights`.
    """
    checkpoint = zoo.checkpoint_of(config, checkpoint)
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
        override(cfg, cfg_options or {})
    else:
        cfg = read_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.cfg, model.dataset_meta = cfg, None
    if checkpoint is not None:
        model.dataset_meta = load_weights(model, checkpoint).get('meta', {}).get('dataset_meta')
    return model.to(device).eval()
