"""Configs by file or by name."""
from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import FlexibleRunner, Runner

from mmsparse import zoo

LOADERS = ('LoadImageFromFile', 'mmcv.LoadImageFromFile', 'mmseg.LoadImageFromFile',
           LoadImageFromFile)
# what a runner, or a tool before it, reads of a config; all other names are variables of the file
SETTINGS = {
    *inspect.signature(Runner.__init__).parameters,
    *inspect.signature(FlexibleRunner.__init__).parameters,
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'init_weights_for_test_or_val', 'model_wrapper_cfg', 'runner_type',
    'sync_bn', 'tta_model', 'tta_pipeline',
} - {'self', 'cfg'}
BROKEN = (ValueError, AttributeError, KeyError, TypeError, RecursionError)  # as mmengine raises


def read_config(config: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config.

    mmengine gives every dict that is inherited from another package ``_scope_`` of that package's
    name, and looks names without a prefix up there. In mmsparse's configs such names are those of
    the default scope, mmseg or mmdet, whoever inherits them; so its scope is taken out again.

    Where that scope is mmseg, pictures are read as stored, like labels: a ``LoadImageFromFile``
    without ``color_type`` gets ``'color_ignore_orientation'`` (see :mod:`mmsparse.pictures`).

    Args:
        config: a file, or ``'mmsparse::sparserefine/NAME.py'`` (or ``mmseg::``, ``mmdet::``) of an
            installed package, or ``'mmsparse://NAME'`` of the zoo.
        cfg_options: settings that override its own, by dotted name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it or one of its bases, such as a calibration file, is broken; or as
            :func:`override`.
    """
    try:
        if zoo.is_address(config):
            cfg = Config.fromfile(zoo.config_file(config))
        else:
            cfg = get_config(str(config)) if '::' in str(config) else Config.fromfile(config)
    except BROKEN as error:
        raise ValueError(f'{config}, or a base of it, is broken: {error}') from error
    _drop_scope(list(cfg.values()))
    override(cfg, cfg_options or {})
    if cfg.get('default_scope', 'mmseg') == 'mmseg':
        for value in cfg.values():
            read_as_stored(value)
    return cfg


def override(cfg: Config, options: dict) -> None:
    """Change settings, in place.

    Args:
        cfg: a config as read.
        options: new values by dotted name.

    Raises:
        ValueError: a name that nothing reads: no setting begins so, or it is a variable of the
            file, whose value was put where it is used when the file was read.
    """
    for name in options:
        key = name.split('.')[0]
        if key in SETTINGS:
            continue
        if key not in cfg:
            raise ValueError(f'cfg_options {name!r}: there is no setting {key!r}; there are '
                             f'{", ".join(sorted(SETTINGS))}')
        places = sorted(place for setting in SETTINGS & set(cfg)
                        for place in _places(cfg[setting], cfg[key], setting))
        also = f'; the same value stands at {", ".join(places)}' if places else ''
        raise ValueError(f'cfg_options {name!r}: {key!r} is a variable of the config, whose value '
                         f'has already been put where it is used; change it there{also}')
    cfg.merge_from_dict(options)


def _places(part: object, value: object, name: str) -> Iterator[str]:
    """Dotted names of what equals a value, in a part of a config that is called ``name``."""
    if type(part) is type(value) and part == value:
        yield name
    elif isinstance(part, dict):
        for key, inner in part.items():
            yield from _places(inner, value, f'{name}.{key}')
    elif isinstance(part, (list, tuple)):
        for index, inner in enumerate(part):
            yield from _places(inner, value, f'{name}.{index}')


def read_as_stored(part: object) -> None:
    """Have each loader in a part of a config leave EXIF's rotation undone, in place.

    Left alone are loaders with a ``color_type``, and those that decode by a library that knows no
    such rotation.
    """
    for node in _dicts_in(part):
        if (node.get('type') in LOADERS
                and node.get('imdecode_backend', 'cv2') in ('cv2', 'pillow')):
            node.setdefault('color_type', 'color_ignore_orientation')


def _drop_scope(part: Any) -> None:
    """Delete ``_scope_='mmsparse'`` everywhere, in place."""
    for node in _dicts_in(part):
        if node.get('_scope_') == 'mmsparse':
            del node['_scope_']


def _dicts_in(part: object) -> Iterator[dict]:
    """Every dict in a part of a config, an outer one before those inside it."""
    if isinstance(part, dict):
        yield part
        part = dict.values(part)
    elif not isinstance(part, (list, tuple)):
        return
    for inner in part:
        yield from _dicts_in(inner)
