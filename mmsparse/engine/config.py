"""Configs by file or by name."""
from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config

from mmsparse import zoo


def read_config(config: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config.

    Args:
        config: a file, or ``'mmsparse::sparserefine/NAME.py'`` (or ``mmseg::``, ``mmdet::``) of an
            installed package, or ``'mmsparse://NAME'`` of the zoo.
        cfg_options: settings that override its own, by dotted name.

    Raises:
        FileNotFoundError: there is none.
    """
    if zoo.is_address(config):
        cfg = Config.fromfile(zoo.config_file(config))
    else:
        cfg = get_config(str(config)) if '::' in str(config) else Config.fromfile(config)
    cfg.merge_from_dict(cfg_options or {})
    return cfg
