"""Safe loading through every door mmengine has, and clear errors for what is no checkpoint."""

import os
import pickle
import tarfile

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch.utils.data import Dataset

import mmsparse  # noqa: F401  installs the loader
from mmsparse import checkpoint
from mmsparse.checkpoint import UnsafeCheckpointError, load_checkpoint


class Touch:
    """Creates the file it was made with when an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def evil(tmp_path):
    """(path of a malicious checkpoint, path that exists once it has run)."""
    path, canary = tmp_path / 'evil.pth', tmp_path / 'canary'
    torch.save({'state_dict': {'weight': torch.ones(2)}, 'meta': Touch(canary)}, path)
    return path, canary


def refused(evil, load):
    path, canary = evil
    with pytest.raises(UnsafeCheckpointError) as error:
        load()
    assert 'posix.mkdir' in str(error.value)
    assert path.name in str(error.value)
    assert not canary.exists()


def test_the_malicious_file_is_real(evil):
    path, canary = evil
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize('legacy', [False, True])
def test_both_torch_formats_are_refused(tmp_path, legacy):
    path, canary = tmp_path / 'evil.pth', tmp_path / 'canary'
    torch.save([torch.ones(2), Touch(canary)], path, _use_new_zipfile_serialization=not legacy)
    refused((path, canary), lambda: load_checkpoint(path))


def test_bare_pickle_is_refused(tmp_path):
    path, canary = tmp_path / 'evil.pkl', tmp_path / 'canary'
    path.write_bytes(pickle.dumps(Touch(canary), 2))
    refused((path, canary), lambda: load_checkpoint(path))


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


def test_every_scheme_of_mmengine_is_covered():
    schemes = CheckpointLoader._schemes
    assert {'', 'http://', 'https://'} <= set(schemes)
    assert all(hasattr(loader, 'runs_nothing') for loader in schemes.values())
    before = dict(schemes)
    checkpoint.install()
    assert CheckpointLoader._schemes == before  # twice is once


def test_local_scheme(evil):
    refused(evil, lambda: CheckpointLoader.load_checkpoint(str(evil[0])))


def test_no_variable_opens_the_door(evil, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    refused(evil, lambda: CheckpointLoader.load_checkpoint(str(evil[0])))


@pytest.mark.parametrize('scheme', ['https', 'http'])
def test_http_scheme(evil, monkeypatch, scheme):
    """torch.hub, which mmengine calls here, loads with ``weights_only=False`` by default."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(evil[0].parent))
    folder = evil[0].parent / 'checkpoints'
    folder.mkdir()
    evil[0].rename(folder / evil[0].name)  # as if downloaded before
    loaders = torch.load
    refused(evil, lambda: CheckpointLoader.load_checkpoint(f'{scheme}://x.invalid/evil.pth'))
    assert torch.load is loaders


def test_pretrained_init(evil):
    model = Line(init_cfg=dict(type='Pretrained', checkpoint=str(evil[0])))
    refused(evil, model.init_weights)


def test_tensors_and_parameters_round_trip(tmp_path):
    state = {
        'f32': torch.rand(2, 3), 'f16': torch.rand(3).half(), 'bf16': torch.rand(3).bfloat16(),
        'i64': torch.arange(3), 'bool': torch.tensor([True]), 'empty': torch.zeros(0, 4),
        'transposed': torch.rand(2, 3).t(), 'parameter': torch.nn.Parameter(torch.rand(2)),
        'size': torch.Size([1, 2]), 'dtype': torch.float16, 'device': torch.device('cpu')}
    for legacy in (False, True):
        path = tmp_path / f'{legacy}.pth'
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        loaded = load_checkpoint(path)
        for name, value in state.items():
            assert type(loaded[name]) is type(value)
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(loaded[name], value), name
        assert loaded['transposed'].stride() == (1, 3)


def test_state_dict_keeps_its_versions(tmp_path):
    state = torch.nn.BatchNorm2d(2).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    assert load_checkpoint(tmp_path / 'a.pth')._metadata == state._metadata


def test_map_location_and_open_files(tmp_path):
    torch.save(torch.ones(2), tmp_path / 'a.pth')
    assert load_checkpoint(tmp_path / 'a.pth', map_location='meta').is_meta
    with open(tmp_path / 'a.pth', 'rb') as file:
        assert torch.equal(load_checkpoint(file), torch.ones(2))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth does not exist'):
        load_checkpoint(tmp_path / 'nothing.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'PK\x03\x04 cut', b'\x80\x02}q'])
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / 'page.pth').write_bytes(content)
    with pytest.raises(RuntimeError, match='cannot read .*page.pth as a checkpoint'):
        load_checkpoint(tmp_path / 'page.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_truncated_checkpoint(tmp_path, legacy):
    path = tmp_path / 'a.pth'
    torch.save(torch.rand(1000), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RuntimeError, match='cannot read .*a.pth as a checkpoint .incomplete'):
        load_checkpoint(path)


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


def run(work_dir, max_epochs, **kwargs):
    torch.manual_seed(0)
    runner = Runner(
        model=Line(), work_dir=str(work_dir), default_scope='mmengine',
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=Numbers(),
                              sampler=dict(type=DefaultSampler, shuffle=False),
                              collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='ExponentialLR', gamma=0.9, end=100),
        experiment_name=work_dir.name, log_level='ERROR', **kwargs)
    runner.train()
    return runner


def test_resume_equals_an_uninterrupted_run(tmp_path):
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
    for name, settings in SCHEDULERS.items():
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = PARAM_SCHEDULERS.build(dict(type=name, optimizer=optimizer, **settings))
        torch.save(scheduler.state_dict(), tmp_path / f'{name}.pth')
        assert load_checkpoint(tmp_path / f'{name}.pth') == scheduler.state_dict(), name


def test_resume_refuses_a_malicious_checkpoint(evil, tmp_path):
    refused(evil, lambda: run(tmp_path / 'a', 1, load_from=str(evil[0])))
    refused(evil, lambda: run(tmp_path / 'b', 1, load_from=str(evil[0]), resume=True))


def test_resume_runs_no_config_text(tmp_path):
    """mmengine executes ``meta['config']`` (of mmcv 1.x) when it resumes."""
    run(tmp_path / 'a', 1)
    path = tmp_path / 'a' / 'epoch_1.pth'
    saved = load_checkpoint(path)
    saved['meta']['config'] = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n"
    torch.save(saved, path)
    assert run(tmp_path / 'a', 2, resume=True).iter == 4
    assert not (tmp_path / 'canary').exists()
