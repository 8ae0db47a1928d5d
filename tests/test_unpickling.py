"""Files that would run code are refused by name, whatever way they take; data passes unchanged."""

import argparse
import collections
import io
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmsparse.unpickling import RestrictedUnpickler, UnsafeCheckpointError

GETATTR = b'cbuiltins\ngetattr\n'
HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'


def load(data: bytes):
    return RestrictedUnpickler(io.BytesIO(data)).load()


def text(value: str) -> bytes:
    """A string in pickle protocol 0."""
    return b'V' + value.encode() + b'\n'


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


# Each writes the file `canary` if it is run by an ordinary unpickler.
def _attacks() -> dict:
    touch = 'touch canary'
    return {
        'posix.system': pickle.dumps(Call(os.system, touch), 2),
        'subprocess.Popen': pickle.dumps(Call(subprocess.Popen, ['touch', 'canary']), 4),
        'builtins.eval': pickle.dumps(Call(eval, "open('canary', 'w')"), 2),
        'builtins.exec': pickle.dumps({'a': [Call(exec, "open('canary', 'w')")]}, 4),
        # builtins.getattr(os, 'system')('touch canary')
        'builtins.__import__': (
            GETATTR + b'(cbuiltins\n__import__\n(' + text('os') + b'tR' + text('system') + b'tR('
            + text(touch) + b'tR.'),
        # getattr(HistoryBuffer, '__init__').__globals__ is where the numpy module lies
        'builtins.getattr': (
            GETATTR + b'(' + HISTORY + text('__init__') + b'tR' + text('x') + b'b.'),
        # names that lead through a module somebody allowed
        'numpy.os.system': b'\x80\x04' + b'\x8c\x05numpy\x8c\x09os.system\x93(' + text(touch)
                           + b'tR.',
        'torch.os.system': b'ctorch\nos.system\n(' + text(touch) + b'tR.',
        'torch.hub.os': b'ctorch.hub\nos\n.',
        'numpy.load': b'cnumpy\nload\n(' + text('canary') + b'tR.',
        'torch.load': b'ctorch\nload\n(' + text('canary') + b'tR.',
        'mmengine.config.config.Config': b'cmmengine.config.config\nConfig\n.',
        'functools.partial': pickle.dumps(Call(collections.OrderedDict, [(
            'f', Call(__import__('functools').partial, os.system, touch))]), 2),
        'mmsparse.unpickling.os': b'cmmsparse.unpickling\nos\n.',
    }


@pytest.mark.parametrize('named', _attacks())
def test_attack_is_refused_by_name(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match=named.replace('.', r'\.')):
        load(_attacks()[named])
    assert not os.path.exists('canary')


def test_attacks_are_real(tmp_path, monkeypatch):
    """The same bytes do run in an ordinary unpickler, so the tests above can fail."""
    monkeypatch.chdir(tmp_path)
    for named in ('posix.system', 'builtins.eval', 'numpy.os.system'):
        if os.path.exists('canary'):
            os.remove('canary')
        try:
            pickle.loads(_attacks()[named])
        except (AttributeError, ImportError):
            continue  # a name that this numpy does not have
        assert os.path.exists('canary'), named


SIDE_DOORS = {
    # calls of allowed values that are not functions for the file to call
    'a call of .HistoryBuffer': HISTORY + b'(lR.',
    'a call of .HistoryBuffer.mean': GETATTR + b'(' + HISTORY + text('mean') + b'tR(tR.',
    'a call of .Namespace': b'cargparse\nNamespace\n(tR.',
    'a call of .ndarray': b'cnumpy\nndarray\n(tR.',
    # attributes set on what is shared: a class, a function
    'the state of a type': HISTORY + b'(N(V__init__\nNdtb.',
    'the state of a function': GETATTR + b'(' + HISTORY + text('mean') + b'tR(N(V__doc__\nNdtb.',
    # objects and items of other types
    'a new OrderedDict': b'ccollections\nOrderedDict\n)\x81.',
    'items put into a Namespace': b'cargparse\nNamespace\n)\x81(Va\nNu.',
    # opcodes of protocols 0 and 1 that call, and the extension registry
    'opcode': b'(' + text('touch canary') + b'ios\nsystem\n.',
    'pickle opcode': b'(cbuiltins\nlist\no.',
    'a pickle opcode': b'\x82\x01.',
}


@pytest.mark.parametrize('name', SIDE_DOORS)
def test_side_doors_are_shut(name):
    with pytest.raises(UnsafeCheckpointError, match=name):
        load(SIDE_DOORS[name])


def test_numpy_state_cannot_be_redefined():
    """A dtype or array may not turn bytes into pointers."""
    for forged in (np.array([object()]), np.zeros(2, [('a', 'i4')])):
        with pytest.raises(UnsafeCheckpointError, match='numpy'):
            load(pickle.dumps(forged, 2))
    pointer = b'cnumpy\ndtype\n(Vf8\nI00\nI01\ntR(I3\nV|\nNNNI-1\nI-1\nI63\ntb.'
    assert load(pointer) == np.dtype('f8')  # flags of the state are not looked at
    fields = b'cnumpy\ndtype\n(Vf8\nI00\nI01\ntR(I3\nV|\nN(Va\ntNI-1\nI-1\nI0\ntb.'
    with pytest.raises(UnsafeCheckpointError, match=r'numpy\.dtype'):
        load(fields)


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('value', [
    {'a': (1, 2.5, True, None), 'b': ['x', b'bytes'], 'c': {1, 2}, 'd': frozenset([3])},
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    ConfigDict(type='SGD', lr=0.1, nested=dict(a=[1])),
    argparse.Namespace(lr=0.1),
    np.float32(0.5),
    complex(1, 2),
    slice(1, 2, 3),
], ids=lambda value: type(value).__name__)
def test_data_passes_unchanged(value, protocol):
    loaded = load(pickle.dumps(value, protocol))
    assert type(loaded) is type(value)
    assert loaded == value


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('dtype', ['f8', 'f4', 'f2', 'i8', 'u1', '?', 'c16', 'U3', 'S3'])
def test_arrays_pass_unchanged(dtype, protocol):
    value = np.array([0, 1, 2]).astype(dtype)
    loaded = load(pickle.dumps(value, protocol))
    assert loaded.dtype == value.dtype
    np.testing.assert_array_equal(loaded, value)


@pytest.mark.parametrize('protocol', [2, 4])
def test_numpy_module_paths_of_both_generations(protocol):
    """numpy 2 renamed ``numpy.core``; files of either must load under either."""
    value = np.arange(3.0)
    data = pickle.dumps({'array': value, 'number': np.float64(2)}, protocol=0)
    for core in (b'cnumpy.core.multiarray', b'cnumpy._core.multiarray'):
        renamed = data.replace(b'cnumpy._core.multiarray', core).replace(
            b'cnumpy.core.multiarray', core)
        loaded = load(renamed)
        np.testing.assert_array_equal(loaded['array'], value)
        assert loaded['number'] == 2


@pytest.mark.parametrize('protocol', [2, 4])
def test_history_buffer(protocol):
    buffer = HistoryBuffer()
    for value in (1.0, 3.0):
        buffer.update(value, 2)
    loaded = load(pickle.dumps(buffer, protocol))
    assert loaded.mean() == buffer.mean() == 1.0
    assert loaded.statistics('max') == 3.0
    loaded.update(5.0)
    assert loaded.current() == 5.0


def test_torch_globals_it_calls_only_build_tensors():
    """Whoever widens the list by a torch name has to widen this as well, and think."""
    from mmsparse.unpickling import _CALLS

    named = {name for name in _CALLS if name.startswith('torch')}
    assert named - {'torch._utils._rebuild_tensor_v3'} == {
        'torch.Size', 'torch.device', 'torch.nn.parameter.Parameter',
        'torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2',
        'torch._utils._rebuild_parameter'}
    assert isinstance(torch.zeros(1), torch.Tensor)
