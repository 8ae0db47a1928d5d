"""Configs by file or by name."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config

from mmsparse import zoo


def read_config(config: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config.

    mmengine gives every dict that is inherited from another package ``_scope_`` of that package's
    name, and looks names without a prefix up there. In mmsparse's configs such names are those of
    the default scope, mmseg or mmdet, whoever inherits them; so its scope is taken out again.

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
    _drop_scope(list(cfg.values()))
    cfg.merge_from_dict(cfg_options or {})
    return cfg


def _drop_scope(part: Any) -> None:
    """Delete ``_scope_='mmsparse'`` everywhere, in place."""
    if isinstance(part, dict):
        if part.get('_scope_') == 'mmsparse':
            del part['_scope_']
        part = dict.values(part)
    elif not isinstance(part, (list, tuple)):
        return
    for value in part:
        _drop_scope(value)
