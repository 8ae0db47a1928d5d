"""The two supported stacks, and the config prefixes that mmengine learns from mmsparse.

Only this module knows which stack is installed; the import names (``mmengine``, ``mmcv``,
``mmdet``, ``mmseg``) are the same on both. Nothing of theirs is patched.
"""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType


class IncompatibleStackError(RuntimeError):
    """What is installed cannot work.

    Not an ``ImportError``: mmengine swallows those while it imports a registry, and the user would
    read about an unknown model instead.
    """


@dataclass(frozen=True)
class Stack:
    """One tested set of MM packages: import name -> (distribution, tested version)."""

    name: str
    packages: dict[str, tuple[str, str]]
    pythons: tuple[tuple[int, int], ...]
    spconv: str


STOCK = Stack(
    name='stock',
    packages={
        'mmengine': ('mmengine', '0.10.7'),
        'mmcv': ('mmcv', '2.1.0'),
        'mmdet': ('mmdet', '3.3.0'),
        'mmseg': ('mmsegmentation', '1.2.2'),
    },
    pythons=((3, 10), (3, 11)),
    spconv='"spconv-cu120==2.3.6" "cumm-cu120<0.5"')
ONEDL = Stack(
    name='onedl',
    packages={
        'mmengine': ('onedl-mmengine', '0.10.12'),
        'mmcv': ('onedl-mmcv', '2.3.6'),
        'mmdet': ('onedl-mmdetection', '3.5.1'),
        'mmseg': ('onedl-mmsegmentation', '1.4.2'),
    },
    pythons=((3, 10), (3, 11), (3, 12)),
    spconv='"spconv-cu126==2.3.8"')
STACKS = (STOCK, ONEDL)


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_stack() -> Stack:
    """The stack whose packages are installed; importing a registry asks for it.

    Raises:
        IncompatibleStackError: Neither is complete, or packages of both are installed: they share
            their import names and have overwritten each other's files.
    """
    found = {stack.name: [d for d, _ in stack.packages.values() if installed_version(d)]
             for stack in STACKS}
    if all(found.values()):
        both = ', '.join(found['stock'] + found['onedl'])
        raise IncompatibleStackError(
            f'packages of both stacks are installed ({both}) and have overwritten each other: '
            f'start a new environment with one of them (pip install "mmsparse[stock]" or '
            '"mmsparse[onedl]")')
    stack = ONEDL if found['onedl'] else STOCK
    missing = [d for d, _ in stack.packages.values() if d not in found[stack.name]]
    if missing:
        raise IncompatibleStackError(
            f'mmsparse needs {", ".join(missing)} (stack "{stack.name}"): run `make` in its '
            f'repository, or pip install "mmsparse[{stack.name}]"')
    return stack


# ---- The sparse engine --------------------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """The spconv that is installed, whether it may be used, and why (one sentence)."""

    distribution: str | None
    version: str | None
    usable: bool
    reason: str


def spconv_command() -> str:
    """The command that installs an spconv for this Python."""
    stack = STOCK if sys.version_info[:2] in STOCK.pythons else ONEDL
    return f'pip install {stack.spconv}'


@functools.cache
def sparse_engine() -> Engine:
    """Which spconv is installed, by distribution name, and whether it may be used.

    The CPU-only wheel is called ``spconv`` (2.3.8): with two threads it is silently wrong, and it
    has no backward pass on the CPU. The wheels called ``spconv-cuXXX`` run on the CPU as well.
    """
    names = {(dist.metadata['Name'] or '').lower().replace('_', '-'): dist.version
             for dist in metadata.distributions()}
    if 'spconv' in names:
        return Engine('spconv', names['spconv'], False,
                      'the CPU-only wheel has a data race (silently wrong results with two '
                      'threads) and no CPU backward pass: pip uninstall -y spconv; '
                      f'{spconv_command()}')
    for name in sorted(names, reverse=True):
        if name.startswith('spconv-cu'):
            return Engine(name, names[name], True,
                          'a CUDA wheel: right on the CPU with any number of threads, and kernels '
                          'for GPUs of compute capability 6.0 to 9.0')
    return Engine(None, None, False, f'spconv is not installed: {spconv_command()}')


@functools.cache
def find_spconv() -> ModuleType:
    """``spconv.pytorch``, imported at the first sparse convolution and not before.

    Raises:
        ImportError: There is no spconv, or only the unsafe one; the message holds the command.
    """
    engine = sparse_engine()
    if not engine.usable:
        found = f'{engine.distribution} {engine.version}: ' if engine.distribution else ''
        raise ImportError(f'sparse convolutions need spconv. {found}{engine.reason}')
    return importlib.import_module('spconv.pytorch')


# ---- Config prefixes ----------------------------------------------------------------------------


def add_config_prefixes() -> None:
    """Let ``_base_ = 'mmsparse::...'`` resolve; all that ``import mmsparse`` changes elsewhere.

    mmengine resolves only the prefixes of a table of its own, and by distribution name, so the
    forks' ``mmseg::`` and ``mmdet::`` fail as well. The import names work on both stacks. What
    :func:`mmsparse.engine.config.read_config` does about scopes goes with it.
    """
    try:
        from mmengine.config.utils import MODULE2PACKAGE
    except (ImportError, OSError):
        # `python -m mmsparse.doctor` must still run and say what is wrong; everything else imports
        # a registry or torch next and fails there.
        return
    MODULE2PACKAGE.update(mmseg='mmseg', mmdet='mmdet', mmsparse='mmsparse')
