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
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mmseg.models.data_preprocessor import SegDataPreProcessor


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


# ---- Names that differ --------------------------------------------------------------------------


@functools.cache
def channel_conversion() -> str:
    """What mmseg's preprocessor calls its turn of the channels; the forks' has mmengine's."""
    return 'channel_conversion' if installed_stack() is STOCK else '_channel_conversion'


def turns_channels(preprocessor: SegDataPreProcessor) -> bool:
    """Whether mmseg's preprocessor turns BGR into RGB, or back."""
    return bool(getattr(preprocessor, channel_conversion()))


# ---- The library of sparse convolutions ---------------------------------------------------------

# Compute capabilities that the wheels called spconv-cuXXX have kernels for.
SPCONV_CAPABILITIES = ((6, 0), (9, 0))
TRITON_COMMAND = 'pip install spconv-triton'


@dataclass(frozen=True)
class SpconvWheel:
    """The installed wheel that sparse convolutions come from.

    Attributes:
        distribution, version: of the wheel; ``None``: there is none.
        module: its import name.
        usable: whether mmsparse computes with it.
        reason: why, one sentence.
    """

    distribution: str | None
    version: str | None
    module: str
    usable: bool
    reason: str


class Spconv(NamedTuple):
    """The three names that mmsparse uses of spconv."""

    SparseConvTensor: type[Any]
    SparseConvolutionBase: type[Any]
    ConvAlgo: type[Any]


def spconv_command() -> str:
    """The command that installs an spconv for this Python."""
    stack = STOCK if sys.version_info[:2] in STOCK.pythons else ONEDL
    return f'pip install {stack.spconv}'


def gpu_without_spconv() -> str | None:
    """A GPU of this machine that spconv's own wheels have no kernels for, in words."""
    try:
        import torch
    except ImportError:  # the doctor runs without it
        return None
    if not torch.cuda.is_available():
        return None
    if torch.version.hip:
        return 'an AMD GPU'
    low, high = SPCONV_CAPABILITIES
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if not low <= capability <= high:
            return f'a GPU of compute capability {capability[0]}.{capability[1]}'
    return None


@functools.cache
def spconv_wheel() -> SpconvWheel:
    """Which spconv is installed, by distribution name, and whether it may be used.

    The CPU-only wheel is called ``spconv`` (2.3.8): with two threads it is silently wrong, and it
    has no backward pass on the CPU. The wheels called ``spconv-cuXXX`` run on the CPU as well.
    ``spconv-triton`` is the same interface in Triton, for GPUs alone: it is taken where it is the
    only one, or where a GPU needs it.
    """
    names = {(dist.metadata['Name'] or '').lower().replace('_', '-'): dist.version
             for dist in metadata.distributions()}
    cuda = next((name for name in sorted(names, reverse=True) if name.startswith('spconv-cu')),
                None)
    refused = 'spconv' in names
    gpu = gpu_without_spconv() if 'spconv-triton' in names or cuda else None
    if 'spconv-triton' in names and (gpu or refused or cuda is None):
        why = f'spconv has no kernels for {gpu}' if gpu else 'no other spconv can be used'
        return SpconvWheel('spconv-triton', names['spconv-triton'], 'spconv_triton', True,
                           f'Triton kernels for any GPU, not for the CPU: {why}')
    if refused:
        return SpconvWheel('spconv', names['spconv'], 'spconv', False,
                           'the CPU-only wheel has a data race (silently wrong results with two '
                           'threads) and no CPU backward pass: pip uninstall -y spconv; '
                           f'{spconv_command()}')
    if cuda is None:
        return SpconvWheel(None, None, 'spconv', False,
                           f'spconv is not installed: {spconv_command()}')
    missing = f'; not for {gpu} of this machine: {TRITON_COMMAND}' if gpu else ''
    return SpconvWheel(cuda, names[cuda], 'spconv', True,
                       'a CUDA wheel: right on the CPU with any number of threads, and kernels '
                       f'for GPUs of compute capability 6.0 to 9.0{missing}')


@functools.cache
def find_spconv() -> Spconv:
    """What mmsparse uses of spconv, imported at the first sparse convolution and not before.

    Raises:
        ImportError: There is no spconv, or only the unsafe one; the message holds the command.
    """
    wheel = spconv_wheel()
    if not wheel.usable:
        found = f'{wheel.distribution} {wheel.version}: ' if wheel.distribution else ''
        raise ImportError(f'sparse convolutions need spconv. {found}{wheel.reason}')
    module = importlib.import_module(f'{wheel.module}.pytorch')
    return Spconv(
        module.SparseConvTensor,
        importlib.import_module(f'{wheel.module}.pytorch.conv').SparseConvolutionBase,
        importlib.import_module(f'{wheel.module}.core').ConvAlgo)


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
