"""Checkpoints are read as data and load where they fit, through every door that mmsparse has."""

import argparse
import collections
import io
import itertools
import os
import pickle
import struct
import subprocess
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch.utils.data import Dataset

from mmsparse.checkpoint import (
    CheckpointError,
    UnsafeCheckpointError,
    allow_mmengine,
    load_checkpoint,
    load_state,
    load_weights,
    state_dict_of,
)
from mmsparse.engine.loading_hook import LoadingHook
from tests.examples import examples

# ---- Programs -----------------------------------------------------------------------------------


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def evil(tmp_path):
    """(path of a malicious checkpoint, path that exists once it has run)."""
    path, canary = tmp_path / 'evil.pth', tmp_path / 'canary'
    torch.save({'state_dict': {'weight': torch.ones(2)}, 'meta': Call(os.mkdir, str(canary))}, path)
    return path, canary


def refused(evil, load):
    path, canary = evil
    with pytest.raises(UnsafeCheckpointError, match=r'posix\.mkdir') as found:
        load()
    assert path.name in str(found.value)
    assert not canary.exists()


def test_the_malicious_file_is_real(evil):
    path, canary = evil
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize('legacy', [False, True])
def test_both_torch_formats_are_refused(tmp_path, legacy):
    path, canary = tmp_path / 'evil.pth', tmp_path / 'canary'
    torch.save([torch.ones(2), Call(os.mkdir, str(canary))], path,
               _use_new_zipfile_serialization=not legacy)
    refused((path, canary), lambda: load_checkpoint(path))


GETATTR = b'cbuiltins\ngetattr\n'
HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
DTYPE = b'cnumpy\ndtype\n(Vf8\nI00\nI01\ntR'


def text(value: str) -> bytes:
    """A string in pickle protocol 0, spelled as protocol 2 does."""
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def words(data: bytes) -> bytes:
    """Protocol 2 from a few opcodes of protocol 0, for torch reads no others."""
    data = data.replace(b'I00\n', b'\x89').replace(b'I01\n', b'\x88')
    parts = data.split(b'V')
    return parts[0] + b''.join(text(p.split(b'\n', 1)[0].decode()) + p.split(b'\n', 1)[1]
                               for p in parts[1:])


def with_pickle(path, data: bytes):
    """A checkpoint of torch's format whose pickle is ``data``."""
    torch.save(torch.ones(2), path)
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w') as new:
        for name, content in records.items():
            new.writestr(name, data if name.endswith('/data.pkl') else content)
    return path


def _attacks() -> dict:
    touch = 'touch canary'
    history = collections.OrderedDict(f=Call(__import__('functools').partial, os.system, touch))
    return {
        'posix.system': pickle.dumps(Call(os.system, touch), 2),
        'Popen': pickle.dumps(Call(subprocess.Popen, ['touch', 'canary']), 2),
        'eval': pickle.dumps(Call(eval, "open('canary', 'w')"), 2),
        'exec': pickle.dumps({'a': [Call(exec, "open('canary', 'w')")]}, 2),
        '__import__': words(GETATTR + b'(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V'
                            + touch.encode() + b'\ntR.'),
        # getattr(HistoryBuffer, '__init__').__globals__ is where the numpy module lies
        'builtins.getattr': words(GETATTR + b'(' + HISTORY + b'V__init__\ntRVx\nb.'),
        'torch.os.system': words(b'ctorch\nos.system\n(V' + touch.encode() + b'\ntR.'),
        'torch.hub.os': b'ctorch.hub\nos\n.',
        'numpy.load': words(b'cnumpy\nload\n(Vcanary\ntR.'),
        'torch.load': words(b'ctorch\nload\n(Vcanary\ntR.'),
        'mmengine.config.config.Config': b'cmmengine.config.config\nConfig\n.',
        'functools.partial': pickle.dumps(history, 2),
        'mmsparse.checkpoint.os': b'cmmsparse.checkpoint\nos\n.',
        # calls and states of what is allowed as a value alone
        'reduce for unrecognized function .*HistoryBuffer.mean': words(
            GETATTR + b'(' + HISTORY + b'Vmean\ntR)R.'),
        'Can only build .*type': words(HISTORY + b'}V__init__\nNsb.'),
        # numbers that are to be taken for pointers to objects
        'numpy array of dtype..O': words(
            b'cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO\nI00\nI01\ntRVAAAAAAAA\ntR.'),
        'numpy array of None': b'cnumpy.core.multiarray\nscalar\n(NNtR.',
    }


@pytest.mark.parametrize('named', _attacks())
def test_attack_is_refused_by_name(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match=named):
        load_checkpoint(with_pickle(tmp_path / 'a.pth', _attacks()[named]))
    assert not os.path.exists('canary')


def test_attacks_are_real(tmp_path, monkeypatch):
    """The same bytes do run in an ordinary unpickler, so the tests above can fail."""
    monkeypatch.chdir(tmp_path)
    for named in ('posix.system', 'eval', '__import__'):
        pickle.loads(_attacks()[named])
        for _ in range(100):
            if os.path.exists('canary'):
                break
        os.remove('canary')


def test_bytes_are_never_pointers(tmp_path):
    """What would make numpy follow 64 bits of a file."""
    for kind in ('O', 'V8,O'):
        torch.save(Call(np.ndarray, (1, ), kind, b'A' * 16), tmp_path / 'a.pth')
        assert load_checkpoint(tmp_path / 'a.pth').dtype == np.uint8  # empty
    flags = np.dtype('f8', False, True)
    state = flags.__reduce__()[2][:-1] + (63, )
    flags.__setstate__(state)
    assert flags.hasobject  # numpy believes the file
    array = np.arange(3.0)

    class Forged:
        def __reduce__(self):
            made, args, (version, shape, _, order, data) = array.__reduce__()
            return made, args, (version, shape, Flagged(), order, data)

    class Flagged:
        def __reduce__(self):
            return np.dtype, ('f8', False, True), state

    torch.save(Forged(), tmp_path / 'a.pth')
    loaded = load_checkpoint(tmp_path / 'a.pth')
    assert not loaded.dtype.hasobject and (loaded == array).all()


def test_programs_in_other_clothes_are_refused(tmp_path):
    """TorchScript runs code of its own, and a tar archive unpacks files."""
    script = tmp_path / 'script.pth'
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), str(script))
    with pytest.raises(UnsafeCheckpointError, match='script.pth.*TorchScript'):
        load_checkpoint(script)
    archive = tmp_path / 'archive.pth'
    with tarfile.open(archive, 'w') as tar:
        tar.add(script, 'storages')
    with pytest.raises(UnsafeCheckpointError, match='archive.pth.*tar'):
        load_checkpoint(archive)


@pytest.mark.parametrize('value', ['1', '0'])
def test_no_variable_opens_the_door(evil, monkeypatch, value):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', value)
    refused(evil, lambda: load_checkpoint(evil[0]))


@pytest.mark.parametrize('scheme', ['https', 'http'])
def test_urls(evil, monkeypatch, scheme):
    """torch.hub, which downloads them, would run them by default."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(evil[0].parent))
    folder = evil[0].parent / 'checkpoints'
    folder.mkdir()
    torch.save(torch.ones(2), folder / 'good.pth')  # as if downloaded before
    evil[0].rename(folder / evil[0].name)
    refused(evil, lambda: load_checkpoint(f'{scheme}://x.invalid/evil.pth'))
    assert load_checkpoint(f'{scheme}://x.invalid/good.pth').sum() == 2


@pytest.mark.parametrize('address', ['torchvision://resnet18', 'nowhere://x.pth'])
def test_names_of_other_collections(address):
    with pytest.raises(CheckpointError, match=f'{address} is no file, no URL'):
        load_checkpoint(address)


# ---- Data ---------------------------------------------------------------------------------------


def history(values):
    buffer = HistoryBuffer()
    for value in values:
        buffer.update(value, 2)
    return buffer


def same(a, b) -> bool:
    """Equal in type and value, arrays by their numbers."""
    if isinstance(b, np.ndarray):
        return (isinstance(a, np.ndarray) and np.array_equal(a, b)
                and a.dtype == b.dtype.newbyteorder('='))  # as numpy unpickles it
    if type(a) is not type(b):
        return False
    if isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.to_dense(), b.to_dense())
    if isinstance(b, HistoryBuffer):
        return all(same(x, y) for x, y in zip(a.data, b.data, strict=True)) and (
            a.max_length == b.max_length)
    if isinstance(b, argparse.Namespace):
        return same(vars(a), vars(b))
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


NUMBERS = ['?', 'i1', 'u2', 'i4', 'i8', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16', '>i4', '>f8']
arrays = st.builds(lambda kind, n, order: np.arange(n * 2).reshape(n, 2, order=order).astype(kind),
                   st.sampled_from(NUMBERS), st.integers(0, 4), st.sampled_from('CF'))
texts = st.text().filter(lambda t: 'mmsparse' not in t)  # what the test looks for
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2**70, 2**70), st.floats(allow_nan=False), texts,
    st.binary(max_size=4), st.complex_numbers(allow_nan=False), arrays,
    arrays.filter(len).map(lambda a: a[0, 0]), st.builds(history, st.lists(st.floats(0, 9))),
    st.frozensets(st.integers(0, 3)).map(set), st.sampled_from([torch.float16, torch.Size([1, 2])]),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]).map(
        lambda kind: torch.arange(4).to(kind)))
names = texts.filter(lambda t: t and not t.startswith('_'))
values = st.recursive(leaves, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(names, inner, max_size=3),
    st.dictionaries(names, inner, max_size=3).map(collections.OrderedDict),
    st.dictionaries(st.sampled_from('abc'), inner, max_size=2).map(ConfigDict),
    st.dictionaries(st.sampled_from('abc'), inner, max_size=2).map(
        lambda d: argparse.Namespace(**d))), max_leaves=8)


@given(values, st.booleans())
@examples(100)
def test_data_passes_unchanged(value, legacy):
    """Whatever mmengine's checkpoints are made of, also saved a second time, by plain torch."""
    for _ in range(2):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
        loaded = read(file.getvalue())
        assert same(loaded, value)
        value = loaded
    assert b'mmsparse' not in file.getvalue()


@pytest.fixture(scope='module', autouse=True)
def place(tmp_path_factory):
    global read
    path = tmp_path_factory.mktemp('read') / 'x.pth'

    def read(content):
        path.write_bytes(content)
        return load_checkpoint(path)


def test_other_tensors(tmp_path):
    """Those that torch reads, mmsparse reads: sparse, quantized, strided; a Parameter stays one."""
    state = {
        'sparse': torch.eye(3).to_sparse(), 'transposed': torch.rand(2, 3).t(),
        'quantized': torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8),
        'parameter': torch.nn.Parameter(torch.rand(2)), 'device': torch.device('cpu')}
    torch.save(state, tmp_path / 'a.pth')
    loaded = load_checkpoint(tmp_path / 'a.pth')
    assert torch.equal(loaded['sparse'].to_dense(), torch.eye(3))
    assert torch.equal(loaded['quantized'].dequantize(), state['quantized'].dequantize())
    assert loaded['transposed'].stride() == (1, 3)
    assert type(loaded['parameter']) is torch.nn.Parameter
    assert loaded['device'] == torch.device('cpu')


def test_numpy_module_paths_of_both_generations(tmp_path):
    """numpy 2 renamed ``numpy.core``; files of either must load under either."""
    array = np.arange(3.0)
    data = pickle.dumps({'array': array, 'number': np.float64(2)}, 2)
    for core in (b'cnumpy.core.multiarray', b'cnumpy._core.multiarray'):
        renamed = data.replace(b'cnumpy._core.multiarray', b'cnumpy.core.multiarray').replace(
            b'cnumpy.core.multiarray', core)
        loaded = load_checkpoint(with_pickle(tmp_path / 'a.pth', renamed))
        assert same(loaded, {'array': array, 'number': np.float64(2)})


def test_history_goes_on(tmp_path):
    torch.save(history([1.0, 3.0]), tmp_path / 'a.pth')
    loaded = load_checkpoint(tmp_path / 'a.pth')
    assert loaded.statistics('max') == 3.0 and loaded.mean() == 1.0
    loaded.update(5.0)
    assert loaded.current() == 5.0


def test_state_dict_keeps_its_versions(tmp_path):
    state = torch.nn.BatchNorm2d(2).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    loaded = load_checkpoint(tmp_path / 'a.pth')
    assert loaded._metadata == state_dict_of(loaded, 'a')._metadata == state._metadata


def test_map_location(tmp_path):
    torch.save(torch.ones(2), tmp_path / 'a.pth')
    assert load_checkpoint(str(tmp_path / 'a.pth'), map_location='meta').is_meta


# ---- Damaged files ------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth does not exist'):
        load_checkpoint(tmp_path / 'nothing.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'PK\x03\x04 cut', b'\x80\x02}q'])
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / 'page.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match='cannot read .*page.pth as a checkpoint'):
        load_checkpoint(tmp_path / 'page.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_truncated_checkpoint(tmp_path, legacy):
    path = tmp_path / 'a.pth'
    torch.save(torch.rand(1000), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match='cannot read .*a.pth as a checkpoint .incomplete'):
        load_checkpoint(path)


def damage(content: bytes, cut: float, at: list[float], what: list[int]) -> bytes:
    """The file without its end, some of its bytes changed."""
    content = bytearray(content[:round(len(content) * cut)])
    for place, value in zip(at, what, strict=False):
        if content:
            content[int(len(content) * place)] = value
    return bytes(content)


def real_file(legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state_dict=torch.nn.BatchNorm1d(2).state_dict(), hub=history([1, 2]),
                    meta=dict(a=np.arange(3), b=argparse.Namespace(c='d'))), file,
               _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


REAL = [real_file(False), real_file(True)]
damages = dict(kind=st.integers(0, 1), cut=st.one_of(st.just(1.0), st.floats(0, 1)),
               at=st.lists(st.floats(0, 0.999), max_size=4),
               what=st.lists(st.integers(0, 255), min_size=4, max_size=4))


def check_damaged(kind, cut, at, what):
    """It loads, or the documented error names it."""
    try:
        read(damage(REAL[kind], cut, at, what))
    except CheckpointError as error:
        assert 'x.pth' in str(error)


test_damaged_files = examples(100)(given(**damages)(check_damaged))
test_many_damaged_files = pytest.mark.slow(
    settings(max_examples=10000, deadline=None)(given(**damages)(check_damaged)))


# ---- Beside what others allow -------------------------------------------------------------------


NUMPY = [np.dtype, np.ndarray, np.empty(0).__reduce__()[0], np.float64().__reduce__()[0],
         type(np.dtype('f8')), HistoryBuffer]


def test_what_the_user_allowed_stays(tmp_path, mmengine_allowed):
    """Any part of what is usually put on torch's list: files load, and the list is left alone."""
    value = [np.arange(3).astype('>f8'), np.float64(2), history([1.0, 2.0]), np.arange(0)]
    torch.save(value, tmp_path / 'a.pth')
    for count in range(len(NUMPY) + 1):
        for allowed in itertools.combinations(NUMPY, count):
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(list(allowed))
            assert same(load_checkpoint(tmp_path / 'a.pth'), value)
            assert set(torch.serialization.get_safe_globals()) == set(allowed)
            allow_mmengine()
            assert same(torch.load(tmp_path / 'a.pth'), value)
            before = set(torch.serialization.get_safe_globals())
            assert same(load_checkpoint(tmp_path / 'a.pth'), value)
            assert set(torch.serialization.get_safe_globals()) == before


def test_other_threads(tmp_path):
    """Loads of others, of whatever kind, go on as before, and so do several of ours."""
    torch.save(history([1.0]), tmp_path / 'ours.pth')
    torch.save(Call(complex, 1, 2), tmp_path / 'theirs.pth')
    jobs = {load_checkpoint: (tmp_path / 'ours.pth', {}),
            torch.load: (tmp_path / 'theirs.pth', dict(weights_only=False))}
    counts = collections.Counter()

    def work(function):
        path, options = jobs[function]
        for _ in range(50):
            function(path, **options)
            counts[function] += 1

    threads = [threading.Thread(target=work, args=(f, )) for f in [*jobs] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(counts.values()) == {100}


def test_twice_is_once(mmengine_allowed):
    before = torch.serialization.get_safe_globals(), CheckpointLoader._schemes
    allow_mmengine()
    assert (set(torch.serialization.get_safe_globals()), CheckpointLoader._schemes) == (
        set(before[0]), before[1])


# ---- Through mmengine ---------------------------------------------------------------------------


class Numbers(Dataset):
    """Four numbers."""

    metainfo = dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]])

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([float(index)]))


class Line(BaseModel):
    """A line fitted to them."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return dict(loss=(self.layer(inputs) - 2 * inputs).square().mean())


def runner_of(work_dir, max_epochs, level='ERROR', **kwargs):
    torch.manual_seed(0)
    return Runner(
        model=Line(), work_dir=str(work_dir), default_scope='mmengine',
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=Numbers(),
                              sampler=dict(type=DefaultSampler, shuffle=False),
                              collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='ExponentialLR', gamma=0.9, end=100),
        experiment_name=work_dir.name, log_level=level, **kwargs)


def run(*args, **kwargs):
    runner = runner_of(*args, **kwargs)
    runner.train()
    return runner


def test_pretrained_init(evil, mmengine_allowed):
    model = Line(init_cfg=dict(type='Pretrained', checkpoint=str(evil[0])))
    refused(evil, model.init_weights)


def test_resume_equals_an_uninterrupted_run(tmp_path, mmengine_allowed):
    """Optimizer, schedule and message hub come back: 4 epochs = 2 epochs, then 2 more."""
    whole = run(tmp_path / 'whole', 4)
    run(tmp_path / 'parts', 2)
    resumed = run(tmp_path / 'parts', 4, resume=True)
    assert resumed.iter == whole.iter == 8
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    saved = load_checkpoint(tmp_path / 'parts' / 'epoch_4.pth')
    history = saved['message_hub']['log_scalars']['train/loss']
    assert history.mean() > 0
    assert len(history.data[0]) == 8
    assert saved['meta']['dataset_meta']['classes'] == ('a', 'b')


SCHEDULERS = {
    'StepLR': dict(step_size=2), 'MultiStepLR': dict(milestones=[1, 2]),
    'ExponentialLR': dict(gamma=0.9), 'CosineAnnealingLR': dict(T_max=5), 'LinearLR': {},
    'ConstantLR': {}, 'PolyLR': {}, 'OneCycleLR': dict(eta_max=0.1, total_steps=5),
    'CosineRestartLR': dict(periods=[2], restart_weights=[1], eta_min=0),
    'ReduceOnPlateauLR': dict(monitor='loss')}


def test_state_of_every_scheduler_loads(tmp_path):
    """None of mmengine's is missing here, and what it saves comes back equal."""
    assert set(SCHEDULERS) == {name for name in PARAM_SCHEDULERS.module_dict if name[-2:] == 'LR'}
    for name, settings_ in SCHEDULERS.items():
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = PARAM_SCHEDULERS.build(dict(type=name, optimizer=optimizer, **settings_))
        torch.save(scheduler.state_dict(), tmp_path / f'{name}.pth')
        assert load_checkpoint(tmp_path / f'{name}.pth') == scheduler.state_dict(), name


def test_resume_refuses_a_malicious_checkpoint(evil, tmp_path, mmengine_allowed):
    refused(evil, lambda: run(tmp_path / 'a', 1, load_from=str(evil[0])))
    refused(evil, lambda: run(tmp_path / 'b', 1, load_from=str(evil[0]), resume=True))


def test_resume_runs_no_config_text(tmp_path, mmengine_allowed):
    """mmengine executes ``meta['config']`` (of mmcv 1.x) when it resumes; not beside our hook."""
    run(tmp_path / 'a', 1)
    path = tmp_path / 'a' / 'epoch_1.pth'
    saved = load_checkpoint(path)
    saved['meta']['config'] = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n"
    torch.save(saved, path)
    resumed = runner_of(tmp_path / 'a', 2, resume=True)
    resumed.register_hook(LoadingHook(str(path), strict=False))
    resumed.train()
    assert resumed.iter == 4
    assert not (tmp_path / 'canary').exists()


# ---- Weights that do not fit --------------------------------------------------------------------


class Net(torch.nn.Module):
    """Two layers with a counter between them."""

    def __init__(self, auxiliary: bool = False):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.decode_head = torch.nn.Linear(3, 4)
        if auxiliary:
            self.auxiliary_head = torch.nn.Linear(3, 4)


KEYS = list(Net().state_dict())


@given(gone=st.sets(st.sampled_from(KEYS)), new=st.sets(st.sampled_from('abcd')),
       other=st.sets(st.sampled_from(KEYS)), spare=st.sets(st.sampled_from(
           ['auxiliary_head.weight', 'x.auxiliary_head.0.bias', 'ema_backbone_weight', 'img_mean',
            'backbone.img_std', 'data_preprocessor.mean'])), prefix=st.booleans(),
       auxiliary=st.booleans())
@examples(100)
def test_every_misfit_is_listed(gone, new, other, spare, prefix, auxiliary):
    """By kind, with its number and its first keys in order; spare entries are none."""
    state = Net().state_dict()
    for key in new | spare:
        state[key] = torch.zeros(1)
    other = {k for k in other - gone if 'num_batches' not in k}
    for key in other:
        state[key] = torch.zeros(7, 7)
    for key in gone:
        del state[key]
    kept = [key for key in KEYS if key not in gone | other]
    if prefix:
        state = {f'module.{key}': value for key, value in state.items()}
    state = {key: value + 1 for key, value in state.items()}
    net = Net(auxiliary)
    found = load_state(net, dict(state_dict=state), 'x')
    expected = {'missing': sorted(key for key in gone if 'num_batches' not in key),
                'unknown': sorted(new), 'of another shape': sorted(other)}
    assert bool(found) == any(expected.values())
    for kind, keys in expected.items():
        part = [p for p in found.split('; ') if f' {kind} ' in p]
        assert len(part) == bool(keys)
        if keys:
            number, listed = part[0].split(f' {kind} (')
            listed = listed.removesuffix(')').split(', ')
            assert int(number) == len(keys)
            assert ('…' in listed) == (len(keys) > 3)
            assert len(listed) == min(len(keys), 4)
            assert set(listed) - {'…'} <= set(keys)
    for key in kept:
        assert torch.equal(net.state_dict()[key], state['module.' * prefix + key])


@pytest.mark.parametrize('content', [[torch.ones(1)], torch.ones(1), {1: torch.ones(1)}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth holds no state dict'):
        load_weights(Net(), tmp_path / 'a.pth')


def test_values_that_are_no_tensors(tmp_path):
    torch.save(dict(Net().state_dict(), **{'norm.bias': 'x'}), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'the checkpoint .*a.pth does not fit.*norm\.bias'):
        load_weights(Net(), tmp_path / 'a.pth')


def test_training_says_in_one_last_line_what_was_not_loaded(
        tmp_path, mmengine_allowed, capsys):
    torch.save(dict(state_dict={'layer.weight': torch.ones(1, 1), 'x': torch.ones(1)}, meta={}),
               tmp_path / 'a.pth')
    runner = runner_of(tmp_path / 'loud', 1, 'WARNING', load_from=str(tmp_path / 'a.pth'))
    runner.register_hook(LoadingHook('weights.pth', strict=False))
    runner.train()
    before, line = capsys.readouterr().out.split('NOT ALL OF weights.pth WAS LOADED')
    assert 'missing keys in source state_dict' in before  # mmengine's warnings
    assert 'ERROR' in before.splitlines()[-1]
    assert '1 missing (layer.bias); 1 unknown (x).' in line.splitlines()[0]
    assert 'WAS LOADED' in next((tmp_path / 'loud').rglob('*.log')).read_text()


def test_a_strict_runner(tmp_path, mmengine_allowed):
    torch.save(dict(state_dict={'layer.weight': torch.ones(1, 1)}, meta={}), tmp_path / 'a.pth')
    runner = runner_of(tmp_path / 'a', 1, load_from=str(tmp_path / 'a.pth'))
    runner.register_hook(LoadingHook('weights.pth', strict=True))
    with pytest.raises(CheckpointError, match=r'weights.pth does not fit the Line .*layer\.bias'):
        runner.train()
