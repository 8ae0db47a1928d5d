"""Read checkpoints without running what they contain, and load them only where they fit.

torch reads a file with ``weights_only=True`` by an allow-list. mmengine's own checkpoints do not
keep to it (their ``message_hub`` holds numpy arrays, and methods that pickle as ``getattr``), and
the usual ways out (``weights_only=False``, ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``, the maintained
fork's silent fallback) run whatever the file asks for. ``KINDS`` widens the list by what mmengine
saves, in a form that gives a file nothing to call but what builds its own data. torch >= 2.6 is
needed: before it ``weights_only=True`` could be tricked (CVE-2025-32434).

What mmsparse's models and ``init_model`` load goes through here; importing mmsparse changes nothing
about what others load. A script whose ``load_from``, ``resume`` or ``init_cfg`` has to read
mmengine's checkpoints calls :func:`allow_mmengine` first; mmsparse's tools do.

What this does not cover: mmengine's inferencers, given weights without a config, execute the config
text in the weights (``meta['cfg']``) as Python. Give them a config.
"""

from __future__ import annotations

import argparse
import copy
import pickle
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.fileio import get
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mmsparse import zoo

__all__ = ['CheckpointError', 'UnsafeCheckpointError', 'allow_mmengine', 'load_checkpoint',
           'load_weights']


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names it and says why."""


class UnsafeCheckpointError(CheckpointError):
    """It asks for something outside the allow-list; nothing of that was run."""


# ---- What mmengine's checkpoints hold besides tensors and plain containers ----------------------

METHODS: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _method(owner: Any, name: Any) -> Callable:
    """``getattr`` for the methods that mmengine's own state names, and for nothing else."""
    if isinstance(owner, type) and name in METHODS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'builtins.getattr (for {getattr(owner, "__name__", owner)!s}.{name})')


def _number_type(dtype: Any) -> np.dtype:
    """A type of numbers anew by its name, for a file may have said that its bytes are pointers."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufc':
        raise pickle.UnpicklingError(f'a numpy array of {dtype!r}')
    return np.dtype(dtype.str)


class _NumberArray(np.ndarray):
    """``numpy.ndarray`` of numbers, empty until its state is set; saved again as a plain array.

    numpy's own would take bytes for pointers to objects.
    """

    def __new__(cls, *_: Any) -> _NumberArray:
        return np.empty(0, np.uint8).view(cls)

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, _number_type(dtype), fortran, data))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _scalar(dtype: Any, data: bytes) -> np.generic:
    """``numpy.core.multiarray.scalar``: one number from its bytes."""
    return np.frombuffer(data, _number_type(dtype), count=1)[0]


KINDS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,  # in many published weights
    ConfigDict,
    HistoryBuffer,
    OneCycleParamScheduler,
    bytes,  # of an empty array
    (_method, 'builtins.getattr'),
    np.dtype, *{type(np.dtype(code)) for code in '?bhilqBHILQefdgFDG'},
    (_NumberArray, 'numpy.ndarray'),
    # numpy 2 renamed its module; files of either load under either
    *((kind, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')
      for kind, name in ((_NumberArray, '_reconstruct'), (_scalar, 'scalar'))),
]

_LOCK = threading.RLock()


@contextmanager
def _mmengine_allowed() -> Iterator[None]:
    """``KINDS`` on torch's list for a while; what stood there before stays."""
    with _LOCK:
        known = torch.serialization.get_safe_globals()
        with torch.serialization.safe_globals([kind for kind in KINDS if kind not in known]):
            yield


def allow_mmengine() -> None:
    """Let this whole process load mmengine's checkpoints and ``mmsparse://NAME``; twice is once.

    ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')`` and mmengine's
    ``load_checkpoint`` then read them, still as data: local files by :func:`load_checkpoint`, for
    the fork of mmengine runs those that its own list refuses. Weights from URLs go through
    torch.hub, those of object stores through mmengine's loaders; both may run what they contain
    unless ``TORCH_FORCE_WEIGHTS_ONLY_LOAD=1`` is set.
    """
    torch.serialization.add_safe_globals(KINDS)
    CheckpointLoader.register_scheme(('', zoo.SCHEME), load_by_mmsparse, force=True)


def load_by_mmsparse(filename: str, map_location: Any = None) -> Any:
    """:func:`load_checkpoint` in the form of a loader of mmengine's ``CheckpointLoader``.

    Weights alone stand under ``'state_dict'``, where hooks of mmengine (``EMAHook``) look for them.
    """
    loaded = load_checkpoint(filename, map_location)
    return loaded if 'state_dict' in loaded else dict(state_dict=loaded)


# ---- Reading ------------------------------------------------------------------------------------

# What a damaged file makes of a reader: any of its steps can go wrong.
DAMAGED = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError,
           RuntimeError, TypeError, ValueError, struct.error, pickle.UnpicklingError)
# What torch puts before and after what was wrong: to trust the file, or to report it.
ADVICE = re.compile(
    r'Weights only load failed\.|In PyTorch 2\.6.*?trusted source\.|'
    r'(This file can|Please file).*?WeightsUnpickler error:|(Check the doc|Please use `torch).*',
    re.DOTALL)
REFUSED = re.compile(r'GLOBAL|reduce for|Can only|getattr|numpy|TorchScript|\.tar')


def load_checkpoint(source: str | Path, map_location: Any = 'cpu') -> Any:
    """What ``torch.save`` wrote, read as data.

    Args:
        source: file, URL (``http``, ``https``, or of a file backend of mmengine), or
            ``'mmsparse://NAME'`` of the zoo.
        map_location: as for ``torch.load``.

    Raises:
        FileNotFoundError: there is no such file or name.
        UnsafeCheckpointError: it asks for more than data; what, is named.
        CheckpointError: it cannot be read or downloaded, is cut off, or no checkpoint.
    """
    file: Any = str(source)
    fetch = file.startswith(('http://', 'https://'))
    if zoo.is_address(file):
        file = BytesIO(zoo.read_weights(file))
    elif '://' in file and not fetch:
        try:
            file = BytesIO(get(file))
        except KeyError:  # of the table of file backends
            raise CheckpointError(f'{source} is no file, no URL and no mmsparse://NAME; other '
                                  'names are for init_cfg alone') from None
    elif not fetch:
        file = Path(file).expanduser()
        if not file.is_file():
            raise FileNotFoundError(
                f'checkpoint {file} {"is a folder" if file.is_dir() else "does not exist"}')
    try:
        with _mmengine_allowed():
            if fetch:
                return torch.hub.load_state_dict_from_url(
                    file, map_location=map_location, weights_only=True)
            return torch.load(file, map_location=map_location, weights_only=True)
    except DAMAGED as error:
        reason = ' '.join(ADVICE.sub('', str(error)).split())
        if REFUSED.search(reason):
            raise UnsafeCheckpointError(
                f'{source} was not loaded, it asks for more than data: {reason} Use it only if you '
                'trust its author, and then convert it to a plain state dict first.') from None
        raise CheckpointError(f'cannot read {source} as a checkpoint (incomplete, or of another '
                              f'kind?): {type(error).__name__}: {reason}') from error


# ---- Loading ------------------------------------------------------------------------------------

# What may be in a file or in a model alone, for it has no part in a prediction or stands in the
# config: auxiliary heads, averaged weights of mmcv 1.x, statistics of pictures, counters.
SPARE = re.compile(r'(^|\.)(auxiliary_head\.|img_mean$|img_std$|num_batches_tracked$)|^ema_'
                   r'|(^|\.)data_preprocessor\.(mean|std)$')


def state_dict_of(loaded: Any, source: str | Path) -> dict[str, Any]:
    """The weights in what a checkpoint file holds, without DistributedDataParallel's prefix.

    Raises:
        CheckpointError: they are no names with values.
    """
    weights = loaded.get('state_dict', loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        raise CheckpointError(f'{source} holds no state dict but a {type(weights).__name__}')
    weights = copy.copy(weights)  # with its versions, which an OrderedDict's own copy() forgets
    consume_prefix_in_state_dict_if_present(weights, 'module.')
    return weights


def load_state(module: torch.nn.Module, loaded: Any, source: str | Path) -> str:
    """Load what fits of what a file holds.

    Returns:
        What did not fit, with the first keys of each kind; empty if all did, but for ``SPARE``.

    Raises:
        CheckpointError: the file holds no weights, or those of a model that this one knows and
            refuses.
    """
    weights = state_dict_of(loaded, source)
    found: list[Any] = []
    handle = module.register_load_state_dict_post_hook(lambda _, keys: found.append(keys))
    shapes: list[str] = []
    try:
        module.load_state_dict(weights, strict=False)
    except CheckpointError as error:  # of a hook of the model
        raise CheckpointError(f'{source}: {error}') from None
    except RuntimeError as error:
        shapes = re.findall(r'size mismatch for (\S+):', str(error)) or str(error).split('\n')[1:]
    finally:
        handle.remove()
    kinds = {'missing': found[0].missing_keys, 'unknown': found[0].unexpected_keys,
             'of another shape': shapes}
    listed = []
    for kind, keys in kinds.items():
        keys = [key for key in keys if not SPARE.search(key)]
        if keys:
            listed.append(f'{len(keys)} {kind} ({", ".join(keys[:3])}{", …" * (len(keys) > 3)})')
    return '; '.join(listed)


def load_weights(module: torch.nn.Module, source: str | Path, name: str = 'the checkpoint') -> Any:
    """Load a checkpoint into a model or a part of one: every key and every shape has to fit.

    mmengine itself loads what fits and only warns about the rest. Auxiliary heads and the other
    entries of ``SPARE`` may be in one of the two alone.

    Args:
        source: as for :func:`load_checkpoint`.
        name: what the checkpoint is called in the config, for the error.

    Returns:
        All that the file holds.

    Raises:
        FileNotFoundError: as :func:`load_checkpoint`.
        CheckpointError: it cannot be read, or does not fit.
    """
    loaded = load_checkpoint(source)
    if misfit := load_state(module, loaded, source):
        parts = ', '.join(type(part).__name__ for part in (
            module, getattr(module, 'backbone', None)) if part is not None)
        raise CheckpointError(f'{name} {source} does not fit ({parts}), weights are {misfit}')
    return loaded
