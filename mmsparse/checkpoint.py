"""Load checkpoints without running what they contain.

torch >= 2.6 refuses all but tensors, mmengine's own checkpoints included (their ``message_hub``
pickles through ``getattr``), and the usual ways out (``weights_only=False``,
``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``, the maintained fork's silent fallback) run whatever the file
asks for. Here :class:`mmsparse.unpickling.RestrictedUnpickler` reads it instead, on every torch
version: an older ``torch.load`` would run anything as well.

What this does not cover: mmengine's inferencers, given weights without a config, execute the config
text in the weights (``meta['cfg']``) as Python. Give them a config.
"""

from __future__ import annotations

import functools
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

from mmsparse import zoo
from mmsparse.unpickling import RestrictedUnpickler, UnsafeCheckpointError

__all__ = ['UnsafeCheckpointError', 'install', 'load_checkpoint', 'load_part']

_LOAD = torch.load

# What `torch.load` asks of a `pickle_module`.
_PICKLE = SimpleNamespace(
    __name__=__name__,
    Unpickler=RestrictedUnpickler,
    load=lambda file, **kwargs: RestrictedUnpickler(file, **kwargs).load())


def _refuse_programs(file: IO[bytes]) -> None:
    """Refuse the two formats in which ``torch.load`` does more than unpickle."""
    start = file.tell()
    if file.read(4) == b'PK\x03\x04':
        file.seek(start)
        if 'constants.pkl' in torch._C.PyTorchFileReader(file).get_all_records():
            raise UnsafeCheckpointError('a TorchScript program')
    else:
        file.seek(start)
        if tarfile.is_tarfile(file):
            raise UnsafeCheckpointError('unpacking a tar archive (the format of torch < 0.1.10)')
    file.seek(start)


def load_checkpoint(file: str | Path | IO[bytes], map_location: Any = None) -> Any:
    """Load a file that ``torch.save`` wrote, running nothing but the allow-list.

    Args:
        file: A path, or a seekable binary file.
        map_location: As for ``torch.load``.

    Raises:
        FileNotFoundError: ``file`` is a path that is no file.
        UnsafeCheckpointError: It asks for a global outside the allow-list, which is named.
        RuntimeError: It is cut off, or no checkpoint.
    """
    if isinstance(file, (str, Path)):
        path = Path(file).expanduser()
        if not path.is_file():
            what = 'is a folder' if path.is_dir() else 'does not exist'
            raise FileNotFoundError(f'checkpoint {path} {what}')
        with path.open('rb') as stream:
            return load_checkpoint(stream, map_location)
    name = getattr(file, 'name', 'the checkpoint')
    try:
        _refuse_programs(file)
        return _LOAD(file, map_location=map_location, pickle_module=_PICKLE, weights_only=False)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(
            f'{name} was not loaded: it asks for {error}, which is not on the allow-list of '
            'mmsparse.unpickling. Use the file only if you trust its author, and then convert it '
            'to a plain state dict first.') from None
    except Exception as error:  # a damaged pickle can raise anything
        raise RuntimeError(
            f'cannot read {name} as a checkpoint (incomplete, or of another kind?): '
            f'{type(error).__name__}: {error}') from error


_SWAP = threading.RLock()


@contextmanager
def _torch_load_is_safe() -> Iterator[None]:
    """Make ``torch.load`` this module's for a while, also where torch.hub calls it."""

    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return load_checkpoint(file, map_location)

    with _SWAP:
        before, torch.load = torch.load, load
        try:
            yield
        finally:
            torch.load = before


def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    """mmengine's loader of ``mmsparse://NAME``; raises as :func:`mmsparse.zoo.read_weights`."""
    return load_checkpoint(BytesIO(zoo.read_weights(filename)), map_location)


def install() -> None:
    """Make every scheme of mmengine's ``CheckpointLoader`` load safely; twice is once.

    ``mmsparse://``, the zoo, becomes one of them.

    ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')`` and the test tools all go that
    way. The ``https`` scheme needs it on every torch version: it ends in torch.hub, whose default
    is still ``weights_only=False``.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    def safe(loader: Callable) -> Callable:

        @functools.wraps(loader)  # mmengine logs the loader's name
        def load(*args: Any, **kwargs: Any) -> Any:
            with _torch_load_is_safe():
                loaded = loader(*args, **kwargs)
            # Text of a config in the files of mmcv 1.x; nobody needs it, and mmengine would run it
            # as Python when a training is resumed.
            if isinstance(loaded, dict) and isinstance(loaded.get('meta'), dict):
                loaded['meta'].pop('config', None)
            return loaded

        load.runs_nothing = True
        return load

    if zoo.SCHEME not in CheckpointLoader._schemes:
        CheckpointLoader.register_scheme(zoo.SCHEME, load_from_zoo)
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if not hasattr(loader, 'runs_nothing'):
            CheckpointLoader.register_scheme(prefix, safe(loader), force=True)


def load_part(module: torch.nn.Module, checkpoint: str, key: str) -> None:
    """Load a checkpoint into a part of a model, every key and every shape.

    mmengine itself loads what fits and only warns about the rest.

    Args:
        module: built without auxiliary heads; their weights in the checkpoint are skipped.
        checkpoint: path or URL.
        key: what the checkpoint is called in the config, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: keys or shapes differ, the first few of each kind are listed.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights = loaded.get('state_dict', loaded)
    weights = {k: v for k, v in weights.items() if not k.startswith('auxiliary_head.')}
    own = module.state_dict()
    problems = {
        'missing': sorted(own.keys() - weights.keys()),
        'unknown': sorted(weights.keys() - own.keys()),
        'of another shape': [k for k in own if k in weights and own[k].shape != weights[k].shape],
    }
    if any(problems.values()):
        listed = '; '.join(f'{len(keys)} {kind} ({", ".join(keys[:3])}{", …" * (len(keys) > 3)})'
                           for kind, keys in problems.items() if keys)
        parts = ', '.join(type(part).__name__ for part in (
            module, getattr(module, 'backbone', None)) if part is not None)
        raise ValueError(f'{key} {checkpoint} does not fit ({parts}), weights are {listed}')
    module.load_state_dict(weights)
