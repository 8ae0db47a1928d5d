"""An unpickler for checkpoints: it builds data and calls nothing else.

A pickle is a small program: it can call whatever function it names. This one is read with an
allow-list of names; only those are called, and only the types a checkpoint is made of are filled.
Allowed: plain containers and numbers, tensors and storages, numeric numpy arrays and scalars (by
the module paths of numpy 1 and 2), mmengine's ``HistoryBuffer``, schedulers and
``ConfigDict``, and ``argparse.Namespace``, which many published weights carry.
"""

from __future__ import annotations

import argparse
import collections
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_PLAIN_TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,
                frozenset, slice)
_NUMBER_KINDS = 'biufcSU'  # numpy kinds whose bytes hold neither Python objects nor records
_METHODS: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


class UnsafeCheckpointError(RuntimeError):
    """The file asks for something outside the allow-list; nothing of that was run."""


# ---- What an allowed name calls where the real thing could do more than build data --------------


def _method(owner: Any, name: Any) -> Callable:
    """``getattr`` for the methods that mmengine's own state names, and for nothing else."""
    if isinstance(owner, type) and name in _METHODS.get(owner, ()):
        return getattr(owner, name)
    raise UnsafeCheckpointError(
        f"the global 'builtins.getattr' (for {getattr(owner, '__name__', owner)!s}.{name})")


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: pickle protocol 2 writes bytes as latin-1 text."""
    if encoding != 'latin1':
        raise UnsafeCheckpointError(f"the global '_codecs.encode' (to {encoding!r})")
    return text.encode('latin1')


def _dtype(spec: str, *flags: bool) -> np.dtype:
    """``numpy.dtype`` of numbers and strings; object and record dtypes could hide pointers."""
    dtype = np.dtype(str(spec))
    if dtype.kind not in _NUMBER_KINDS:
        raise UnsafeCheckpointError(f"the global 'numpy.dtype' (for {spec!r})")
    return dtype


def _empty_array(subtype: type, shape: Any, typecode: Any) -> np.ndarray:
    """``numpy.core.multiarray._reconstruct``: an empty array; its contents follow."""
    if subtype is not np.ndarray:
        raise UnsafeCheckpointError(f'a numpy array of {subtype!r}')
    return np.empty(0, dtype=np.uint8)


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    """``numpy.core.multiarray.scalar``: one number from its bytes."""
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _defaultdict(factory: type | None = None, *items: Any) -> collections.defaultdict:
    """``collections.defaultdict`` whose factory makes a plain value."""
    if factory is not None and factory not in _PLAIN_TYPES:
        raise UnsafeCheckpointError(f"the global 'collections.defaultdict' (of {factory!r})")
    return collections.defaultdict(factory, *items)


# ---- The allow-list -----------------------------------------------------------------------------

# Names a file may call.
_CALLS: dict[str, Callable] = {
    **{f'builtins.{kind.__name__}': kind for kind in _PLAIN_TYPES},
    'builtins.getattr': _method,
    '_codecs.encode': _encode,
    'collections.Counter': collections.Counter,  # milestones of MultiStepLR
    'collections.OrderedDict': collections.OrderedDict,
    'collections.defaultdict': _defaultdict,
    'numpy.dtype': _dtype,
    'numpy.core.multiarray._reconstruct': _empty_array,
    'numpy._core.multiarray._reconstruct': _empty_array,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
    'mmengine.config.config.ConfigDict': ConfigDict,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.nn.parameter.Parameter': torch.nn.Parameter,
    # `_rebuild_tensor_v3` (torch 2.1) carries the dtypes that have no storage class.
    **{f'torch._utils.{name}': getattr(torch._utils, name)
       for name in ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3',
                    '_rebuild_parameter') if hasattr(torch._utils, name)},
}
# Names a file may only hand to one of those.
_VALUES: dict[str, Any] = {
    'argparse.Namespace': argparse.Namespace,
    'numpy.ndarray': np.ndarray,
    'torch.storage.UntypedStorage': torch.UntypedStorage,
    **{f'{owner.__module__}.{owner.__name__}': owner for owner in _METHODS},
    # pickle protocol 4 and later name methods directly, without `getattr`
    **{f'{owner.__module__}.{owner.__name__}.{name}': getattr(owner, name)
       for owner, names in _METHODS.items() for name in names},
    **{f'torch.{name}': value for name, value in vars(torch).items()
       if isinstance(value, torch.dtype) or name.endswith('Storage')},
}


# ---- How the state of each type may be set ------------------------------------------------------


def _set_array(array: np.ndarray, state: tuple) -> None:
    version, shape, dtype, fortran, data = state
    if not isinstance(dtype, np.dtype) or type(data) is not bytes:
        raise UnsafeCheckpointError('a numpy array that is not plain numbers')
    array.__setstate__((version, shape, dtype, fortran, data))


def _set_dtype(dtype: np.dtype, state: tuple) -> None:
    # `numpy.dtype(...)` has built it already and the state may only say so again: the real
    # __setstate__ would let a file redefine what the bytes of an array mean.
    if state[1] not in ('<', '|', '=') or any(part is not None for part in state[2:5]):
        raise UnsafeCheckpointError(f"the global 'numpy.dtype' (with state {state!r})")


def _set_history(buffer: HistoryBuffer, state: dict) -> None:
    # The methods are those of the running mmengine, whatever the file holds.
    buffer.__setstate__({name: state[name] for name in ('max_length', '_log_history',
                                                        '_count_history')})


def _set_ordered_dict(target: collections.OrderedDict, state: dict) -> None:
    if set(state) != {'_metadata'}:  # torch hangs the versions of a state dict there
        raise UnsafeCheckpointError(f'attributes {sorted(map(str, state))} of an OrderedDict')
    target._metadata = state['_metadata']


def _set_namespace(target: argparse.Namespace, state: dict) -> None:
    vars(target).update(state)


_SETTERS: dict[type, Callable[[Any, Any], None]] = {
    np.ndarray: _set_array,
    HistoryBuffer: _set_history,
    collections.OrderedDict: _set_ordered_dict,
    argparse.Namespace: _set_namespace,
}
_CONTAINERS = (list, set, dict, collections.Counter, collections.OrderedDict,
               collections.defaultdict, ConfigDict)


def _filling(load: Callable, target: Callable) -> Callable:
    """``load`` (an opcode that adds items) for plain containers only."""

    def checked(self: RestrictedUnpickler) -> None:
        if type(target(self)) not in _CONTAINERS:
            raise UnsafeCheckpointError(f'items put into a {type(target(self)).__name__}')
        load(self)

    return checked


class RestrictedUnpickler(pickle._Unpickler):
    """The pickle language without whatever could reach beyond the allow-list.

    The Python implementation is used because the C one calls any object that lies on its stack;
    the pickle of a checkpoint holds no bulk data, so its speed does not matter.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What an allowed name stands for; any other name is an error that shows it."""
        key = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if key in _CALLS:
            return _CALLS[key]
        if key in _VALUES:
            return _VALUES[key]
        raise UnsafeCheckpointError(f"the global '{key}'")

    def load_reduce(self) -> None:
        """Call an allowed function, never something else that lies on the stack."""
        args = self.stack.pop()
        func = self.stack[-1]
        if not any(func is allowed for allowed in _CALLS.values()):
            raise UnsafeCheckpointError(
                f"a call of '{getattr(func, '__qualname__', type(func).__name__)}'")
        self.stack[-1] = func(*args)

    def load_newobj(self) -> None:
        """Make an empty object of one of the two classes whose state is set by rule."""
        args = self.stack.pop()
        kind = self.stack.pop()
        if kind not in (HistoryBuffer, argparse.Namespace) or args:
            raise UnsafeCheckpointError(f'a new {getattr(kind, "__qualname__", kind)!s}')
        self.append(kind.__new__(kind))

    def load_build(self) -> None:
        """Set the state of an object by the rule of its type."""
        state = self.stack.pop()
        target = self.stack[-1]
        setter = _set_dtype if isinstance(target, np.dtype) else _SETTERS.get(type(target))
        if setter is None:
            raise UnsafeCheckpointError(f'the state of a {type(target).__qualname__}')
        setter(target, state)

    def load_refused(self) -> None:
        """INST and OBJ are calls of protocol 0 and 1; EXT reads a cache past ``find_class``."""
        raise UnsafeCheckpointError('a pickle opcode that no checkpoint needs')

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        **dict.fromkeys((pickle.INST[0], pickle.OBJ[0], pickle.NEWOBJ_EX[0], pickle.EXT1[0],
                         pickle.EXT2[0], pickle.EXT4[0]), load_refused),
        pickle.APPEND[0]: _filling(pickle._Unpickler.load_append, lambda s: s.stack[-2]),
        pickle.SETITEM[0]: _filling(pickle._Unpickler.load_setitem, lambda s: s.stack[-3]),
        pickle.APPENDS[0]: _filling(pickle._Unpickler.load_appends, lambda s: s.metastack[-1][-1]),
        pickle.SETITEMS[0]: _filling(pickle._Unpickler.load_setitems,
                                     lambda s: s.metastack[-1][-1]),
        pickle.ADDITEMS[0]: _filling(pickle._Unpickler.load_additems,
                                     lambda s: s.metastack[-1][-1]),
    }
