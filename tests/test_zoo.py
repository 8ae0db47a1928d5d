"""The zoo: every name loads strictly, and what is said of it is true; its tools."""
import hashlib
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner.checkpoint import CheckpointLoader

from mmsparse import zoo
from mmsparse.apis import inference, init_model, refine_mask
from mmsparse.checkpoint import CheckpointError, UnsafeCheckpointError, load_checkpoint
from mmsparse.engine.loading import load_model
from mmsparse.models.crm import CRMRefiner
from mmsparse.models.sparserefine import SparseRefineSegmentor

NAMES = sorted(zoo.entries())
NAME = 'wnet_hrf'
ADDRESS = f'{zoo.SCHEME}{NAME}'


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A zoo to write into; its configs are still the package's."""
    config = zoo.config_file(ADDRESS)
    shutil.copytree(zoo.FOLDER, tmp_path / 'zoo')
    monkeypatch.setattr(zoo, 'FOLDER', tmp_path / 'zoo')
    monkeypatch.setattr(zoo, 'config_file', lambda address: zoo.find(address) and config)
    return tmp_path / 'zoo'


@pytest.fixture
def command(root, monkeypatch, loading):
    """Run a tool's function in this process: module, command line -> module."""

    def load(name, *line):
        import importlib.util
        monkeypatch.syspath_prepend(str(root / 'tools'))
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, line)])
        spec = importlib.util.spec_from_file_location(name, root / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load


# ---- What is in it ----


def test_every_file_has_an_entry_and_all_are_small():
    files = list(zoo.FOLDER.glob('*.pth'))
    assert sorted(file.stem for file in files) == NAMES
    assert sum(file.stat().st_size for file in files) <= 20e6


@pytest.mark.parametrize('name', NAMES)
def test_the_file_is_a_plain_state_dict_in_half_precision(name):
    path = zoo.FOLDER / f'{name}.pth'
    assert hashlib.sha256(path.read_bytes()).hexdigest() == zoo.entries()[name]['sha256']
    weights = torch.load(path, weights_only=True)
    assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    assert not any(key.startswith('module.') for key in weights)


@pytest.mark.parametrize('name', NAMES)
def test_it_loads_and_predicts(name):
    address = f'{zoo.SCHEME}{name}'
    model = load_model(address, None, 'cpu')
    state, weights = model.state_dict(), torch.load(zoo.FOLDER / f'{name}.pth')
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key].half(), value.half()) for key, value in weights.items())
    assert not any(v.dtype == torch.float16 for v in state.values())
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    if isinstance(model, CRMRefiner):
        model = init_model(address, device='cpu')
        assert refine_mask(image, image[..., 0], model).shape == (96, 128)
    else:
        small = {'test_dataloader.dataset.pipeline.1.scale': (128, 96)}
        if isinstance(model, SparseRefineSegmentor):
            small['model.low_res_size'] = (48, 64)
        model = init_model(address, device='cpu', cfg_options=small)
        sample = inference(model, image)
        assert sample.pred_sem_seg.shape == (96, 128)
        assert model.dataset_meta['classes']
        plain = inference(load_model(address, None, 'cpu', small), image)
        assert (plain.pred_sem_seg.data == sample.pred_sem_seg.data).float().mean() > 0.999


@pytest.mark.parametrize('name', NAMES)
def test_page_and_notice(root, name):
    entry = zoo.entries()[name]
    assert set(entry) == {'config', 'sha256', 'license', 'data', 'training', 'made', 'results'}
    page = (root / 'docs/zoo.md').read_text().split(f'## {name}\n')[1].split('\n## ')[0]
    assert f'configs/{entry["config"]}' in page
    assert all(entry[key] in page for key in ('license', 'data', 'training'))
    assert all(line in page for line in entry['made'])
    assert all(str(value) in page for value in entry['results'].values())
    kind, holder = entry['license'].split(', ')
    notice = (zoo.FOLDER / f'{name}.LICENSE').read_text()
    assert kind in notice and holder in notice


# ---- By name ----


def test_a_name_that_is_not_there(command, mmengine_allowed):
    for call in (lambda: init_model('mmsparse://wnet'), lambda: zoo.read_weights('mmsparse://wnet'),
                 lambda: CheckpointLoader.load_checkpoint('mmsparse://wnet')):
        with pytest.raises(FileNotFoundError, match=f"has no 'wnet', only .*{NAME}"):
            call()
    for name, *line in (('complexity', 'mmsparse://wnet'), ('test', 'mmsparse://wnet'),
                        ('export_onnx', 'a.py', 'mmsparse://wnet'),
                        ('train', 'mmsparse://wnet')):
        with pytest.raises(SystemExit, match="does not exist|has no 'wnet'"):
            command(name, *line).main()


def test_refine_has_a_refiner(command):
    """The small one; with a checkpoint the paper's config, unless one is named."""
    line = 'refine', 'a.png', 'm.png', '--out', 'x'
    chosen = [command(*line, *more).parse_args().config for more in (
        (), ('--checkpoint', 'w.pth'), ('--checkpoint', 'w.pth', '--config', 'c.py'))]
    assert chosen == ['mmsparse://crm_mnv2', 'mmsparse::crm/crm_r50_2xb6-45k_saliency-224x224.py',
                      'c.py']


def test_a_damaged_file_is_refused(copy):
    path = copy / f'{NAME}.pth'
    path.write_bytes(path.read_bytes()[:-1] + b'?')
    with pytest.raises(RuntimeError, match=r'wnet_hrf\.pth is damaged: its SHA-256 is'):
        init_model(ADDRESS, device='cpu')


def test_nothing_runs_even_with_the_right_hash(copy):
    """The file is read as data, as every checkpoint."""
    path = copy / f'{NAME}.pth'
    torch.save(dict(state_dict=shutil.rmtree), path)
    index = copy / 'zoo.yml'
    index.write_text(index.read_text().replace(
        zoo.find(ADDRESS)['sha256'], hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(UnsafeCheckpointError, match='rmtree'):
        load_checkpoint(ADDRESS)


def test_weights_have_to_fit():
    other = {'model.backbone.num_classes': 5}
    misfit = r'wnet_hrf does not fit .*of another shape \(backbone\.final1'
    with pytest.raises(CheckpointError, match=misfit):
        init_model(ADDRESS, device='cpu', cfg_options=other)
    with pytest.raises(CheckpointError, match=misfit):
        load_model(ADDRESS, None, torch.device('cpu'), other)


def test_config_and_weights_apart(tmp_path):
    """A name in place of the config alone, and of the checkpoint alone."""
    model = load_model(ADDRESS, None, 'cpu')
    for value in model.parameters():
        value.data.fill_(0.5)
    torch.save(model.state_dict(), tmp_path / 'own.pth')
    own = init_model(ADDRESS, tmp_path / 'own.pth', device='cpu')
    assert (own.decode_head.conv_seg.weight == 0.5).all()
    named = init_model(str(zoo.config_file(ADDRESS)), ADDRESS, device='cpu')
    assert not (named.decode_head.conv_seg.weight == 0.5).any()


def test_pretrained_by_name(mmengine_allowed):
    """``init_cfg`` goes the way that ``load_from`` goes."""
    cfg = Config.fromfile(zoo.config_file(ADDRESS))
    from mmengine.registry import MODELS, init_default_scope
    init_default_scope('mmseg')
    model = MODELS.build(dict(cfg.model, init_cfg=dict(type='Pretrained', checkpoint=ADDRESS)))
    model.init_weights()
    key = 'decode_head.conv_seg.weight'
    assert torch.equal(model.state_dict()[key].half(), torch.load(zoo.FOLDER / f'{NAME}.pth')[key])


# ---- Tools ----


def test_an_average_of_the_weights_starts_from_a_name(mmengine_allowed):
    """Hooks of mmengine look for the weights under ``state_dict``."""
    model = load_model(ADDRESS, None, 'cpu')
    hook = EMAHook()
    runner = SimpleNamespace(model=model, _resume=False)
    hook.before_run(runner)
    loaded = CheckpointLoader.load_checkpoint(ADDRESS)
    hook.after_load_checkpoint(runner, loaded)
    averaged = hook.ema_model.module.state_dict()
    assert all(torch.equal(averaged[key], value) for key, value in model.state_dict().items())


def test_a_name_stands_for_the_checkpoint(command, tmp_path):
    find = command('command_line').find_checkpoint
    (tmp_path / 'a.pth').touch()
    assert find(ADDRESS, None) == ADDRESS
    assert find(ADDRESS, f'{tmp_path}/a.pth') == f'{tmp_path}/a.pth'
    assert find('a.py', ADDRESS) == ADDRESS
    assert find('a.py', None, required=False) is None
    (tmp_path / 'a.py').write_text('model = dict()')
    with pytest.raises(SystemExit, match='a.py needs a checkpoint'):
        find(str(tmp_path / 'a.py'), None)
    (tmp_path / 'parts.py').write_text("model = dict(refiner_checkpoint='a', "
                                       "segmentor_checkpoint='b')")
    assert find(str(tmp_path / 'parts.py'), None) is None


@pytest.mark.parametrize(('line', 'config', 'checkpoint'), [
    ([ADDRESS], ADDRESS, None), (['a.py', 'b.pth'], 'a.py', 'b.pth'),
    (['a.py', ADDRESS], 'a.py', ADDRESS), ([ADDRESS, 'b.pth'], ADDRESS, 'b.pth'),
    ([ADDRESS, ADDRESS], ADDRESS, ADDRESS), (['a.py'], 'a.py', None),
    (['mmsparse::a/b.py', 'https://c.d/e.pth'], 'mmsparse::a/b.py', 'https://c.d/e.pth')])
def test_predict_tells_config_and_checkpoint_from_inputs(command, line, config, checkpoint):
    args = command('predict', *line, 'x.jpg', 'y.jpg', '--out', 'out').parse_args()
    assert (args.config, args.checkpoint) == (config, checkpoint)
    assert args.inputs == ['x.jpg', 'y.jpg']


def test_test_loads_strictly(command, monkeypatch):
    from mmengine.runner import Runner
    calls = []
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: calls.append(cfg) or cls))
    monkeypatch.setattr(Runner, 'test', lambda: calls.append('test'))
    monkeypatch.setattr(Runner, 'register_hook', calls.append)
    command('test', ADDRESS).main()
    assert calls[0].load_from == ADDRESS and calls[0].work_dir == f'work_dirs/{NAME}'
    assert (calls[1].source, calls[1].strict) == (ADDRESS, True) and calls[2:] == ['test']


def test_training_goes_on_from_a_name(command, monkeypatch):
    from mmengine.runner import Runner
    configs = []
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(
        lambda cls, cfg: configs.append(cfg) or cls))
    hooks = []
    monkeypatch.setattr(Runner, 'train', lambda: None)
    monkeypatch.setattr(Runner, 'model', torch.nn.Identity(), raising=False)
    monkeypatch.setattr(Runner, 'register_hook', hooks.append)
    command('train', ADDRESS).main()
    command('train', ADDRESS, '--resume').main()  # from its own last checkpoint
    assert [cfg.get('load_from') for cfg in configs] == [ADDRESS, None]
    assert [hook.strict for hook in hooks] == [False, False]


# ---- Adding to it ----


def test_publish(copy, command, tmp_path, capsys):
    model = load_model(ADDRESS, None, 'cpu')
    with torch.no_grad():
        model.decode_head.conv_seg.weight.fill_(1 / 3)
    state, file = model.state_dict(), tmp_path / 'own.pth'
    torch.save(dict(state_dict=state), file)
    config, before = zoo.config_file(ADDRESS), zoo.entries()
    with pytest.raises(SystemExit, match='exists; --force writes over it'):
        command('publish', config, file, NAME).main()
    command('publish', config, file, NAME, '--force').main()
    again = init_model(ADDRESS, device='cpu')  # with the new hash
    assert again.decode_head.conv_seg.weight.unique().item() == float(torch.tensor(1 / 3).half())
    assert zoo.entries()[NAME] | dict(sha256=before[NAME]['sha256']) == before[NAME]
    capsys.readouterr()
    command('publish', config, file, 'new').main()
    digest = hashlib.sha256((copy / 'new.pth').read_bytes()).hexdigest()
    assert f'new:\n  sha256: {digest}' in capsys.readouterr().out


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s: s.pop('decode_head.conv_seg.bias'), r'Missing key.*decode_head\.conv_seg\.bias'),
    (lambda s: s.update(extra=torch.zeros(1)), 'Unexpected key.*extra'),
    (lambda s: s.update({'decode_head.conv_seg.bias': torch.full((3,), 7e4)}),
     r'decode_head\.conv_seg\.bias is not finite in half precision')])
def test_publish_refuses(copy, command, tmp_path, change, message):
    state = dict(load_model(ADDRESS, None, 'cpu').state_dict())
    change(state)
    torch.save(state, tmp_path / 'own.pth')
    with pytest.raises(SystemExit, match=f'(?s){message}'):
        command('publish', zoo.config_file(ADDRESS), tmp_path / 'own.pth', 'new').main()
    assert not (copy / 'new.pth').exists()
