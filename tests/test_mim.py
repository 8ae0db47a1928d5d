"""mim finds the installed wheel and runs its tools: each command as a user calls it.

The commands run in another folder and without the checkout on the path, so that nothing but the
wheel is there to be found.
"""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from mmsparse.compat import STOCK, installed_stack
from mmsparse.zoo import entries
from tests.wheel import needs_wheel, wheel_files

ROOT = Path(__file__).resolve().parent.parent
# The demo's SparseRefine and its low-resolution baseline, by file name, as mim takes them.
(CONFIG,) = (path.name for path in ROOT.glob('configs/sparserefine/sparserefine_*_scenes-*.py'))
(LOW,) = (path.name for path in ROOT.glob('configs/sparserefine/fcn_*_scenes-512x1024.py'))
# Two iterations on two small pictures, in the process itself.
SMALL = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
         *(f'{part}_dataloader.{setting}' for part in ('train', 'val', 'test') for setting in (
             'num_workers=0', 'persistent_workers=False', 'dataset.size=(128,256)',
             'dataset.length=2'))]
FRESH_REFINER = ['model.segmentor_checkpoint=None', 'model.decode_head.extractor.channels=(4,8)']


def mim(*arguments, cwd):
    """Call mim; what it printed."""
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'mim', *map(str, arguments)],
                            cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout + result.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(work folder, output) of ``mim train`` on a config that only the wheel has."""
    folder = tmp_path_factory.mktemp('mim')
    output = mim('train', 'mmsparse', CONFIG, '--work-dir', folder / 'run', '--cfg-options', *SMALL,
                 *FRESH_REFINER, cwd=folder)
    return folder / 'run', output


@needs_wheel
def test_train(trained):
    work_dir, output = trained
    assert (work_dir / 'iter_2.pth').is_file()
    assert 'mmsparse/.mim/configs/sparserefine' in output  # the wheel's, not the checkout's
    assert 'decode.loss_sparse_ce' in output
    assert 'Training finished successfully' in output


@needs_wheel
def test_test(trained):
    """With a checkpoint of mmengine's own, whose message hub torch >= 2.6 refuses."""
    work_dir, _ = trained
    output = mim('test', 'mmsparse', CONFIG, '--checkpoint', work_dir / 'iter_2.pth', '--work-dir',
                 work_dir / 'test', '--cfg-options', *SMALL, *FRESH_REFINER, cwd=work_dir.parent)
    assert re.search(r'mIoU: \d', output)
    assert 'Testing finished successfully' in output


@needs_wheel
@pytest.mark.slow
def test_an_ensemble(trained):
    """Two members with weights of their own, averaged; the metric is the member's, for they are
    the same. mim wants a checkpoint; the first member's will do, it is loaded again."""
    work_dir, _ = trained
    folder = work_dir.parent
    mim('train', 'mmsparse', LOW, '--work-dir', folder / 'low', '--cfg-options', *SMALL, cwd=folder)
    weights = folder / 'low' / 'iter_2.pth'
    (folder / 'ensemble.py').write_text(
        f"_base_ = '{folder / 'low' / LOW}'\n"
        'member = dict(_base_.model, init_cfg=dict(\n'
        f"    type='Pretrained', checkpoint='{weights}'))\n"
        "model = dict(_delete_=True, type='mmsparse.SegEnsemble', segmentors=[member, member])\n")

    def score(*arguments):
        output = mim('run', 'mmsparse', 'test', *arguments, '--cfg-options', *SMALL, cwd=folder)
        return re.search(r'mIoU: ([\d.]+)', output)[1]
    assert score(folder / 'ensemble.py') == score(folder / 'low' / LOW, weights)


@needs_wheel
@pytest.mark.slow
def test_gridsearch(trained):
    """One training per value. On the forks mim itself cannot parse ``mmseg::``, so there the
    config is the one that training has written out whole."""
    work_dir, _ = trained
    stock = installed_stack() is STOCK
    config = LOW if stock else work_dir / CONFIG
    mim('gridsearch', 'mmsparse', config, '--work-dir', work_dir.parent / 'grid',
        '--search-args', '--optim_wrapper.optimizer.lr 0.001 0.002', '--no-validate',
        '--cfg-options', *SMALL, cwd=work_dir.parent)
    found = sorted(work_dir.parent.glob('grid_search_*/iter_2.pth'))
    assert [re.search(r'lr_(0\.00\d)', str(path)).group(1) for path in found] == ['0.001', '0.002']


@pytest.mark.slow
@needs_wheel
def test_run(tmp_path):
    output = mim('run', 'mmsparse', 'doctor', cwd=tmp_path)
    assert 'sparse engine' in output
    assert 'nothing is broken' in output


@pytest.mark.slow
@needs_wheel
def test_weights_by_name(tmp_path):
    """The wheel has a config and the weights of every name of the zoo, and needs nothing else."""
    code = ('from mmsparse import apis, zoo\n'
            'print(len([apis.init_model(zoo.SCHEME + n, device="cpu") for n in zoo.entries()]))\n'
            'assert ".mim" in str(zoo.config_file("mmsparse://wnet_hrf"))')
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, env=env,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == str(len(entries()))


@needs_wheel
def test_search(tmp_path):
    mim('search', 'mmsparse', '--json', 'found.json', cwd=tmp_path)
    found = json.loads((tmp_path / 'found.json').read_text())
    assert set(found['config']) == {model['Name'] for model in models()}
    output = mim('search', 'mmsparse', '--dataset', 'cityscapes', '--display-width', '200',
                 cwd=tmp_path)
    assert 'sparserefine_fcn-hr48' in output
    assert 'scenes' not in output.lower()


@pytest.mark.slow
@needs_wheel
@pytest.mark.skipif(installed_stack() is not STOCK,
                    reason='mim parses configs itself, and on the forks it cannot parse `mmseg::`')
def test_download(tmp_path):
    """Without weights the config alone is written; weights that are there are not fetched again."""
    name = Path(CONFIG).stem
    mim('download', 'mmsparse', '--config', name, '--dest', tmp_path, cwd=tmp_path)
    assert 'SparseRefineSegmentor' in (tmp_path / f'{name}.py').read_text()
    model = next(m for m in models() if has_weights(m))
    (tmp_path / Path(model['Weights']).name.lower()).write_text('as if fetched before')
    output = mim('download', 'mmsparse', '--config', model['Name'], '--dest', tmp_path,
                 cwd=tmp_path)
    assert 'exists in' in output and (tmp_path / f'{model["Name"]}.py').is_file()


@needs_wheel
def test_wheel_holds_what_mim_reads(root):
    """Every config and tool of the checkout, and nothing else."""
    inside = {str(file).removeprefix('mmsparse/.mim/') for file in wheel_files()}
    inside = {name for name in inside if '__pycache__' not in name}
    outside = {str(path.relative_to(root)) for folder in ('configs', 'tools')
               for path in (root / folder).rglob('*')
               if path.is_file() and '__pycache__' not in path.parts}
    assert inside == outside | {'model-index.yml'}


# ---- The model index, in the checkout ----


def models():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        yield from yaml.safe_load((ROOT / name).read_text())['Models']


def has_weights(model):
    """Whether there is something to download; else the entry is words and a slash."""
    return not model['Weights'].endswith('/')


def test_a_model_without_weights_says_so():
    zoo_configs = {f'configs/{entry["config"]}': name for name, entry in entries().items()}
    for model in models():
        name = zoo_configs.get(model['Config'])
        words = f'in the package as mmsparse://{name}/' if name else 'none yet/'
        assert model['Weights'].startswith('https://') or model['Weights'] == words


@pytest.fixture
def download(monkeypatch, tmp_path):
    """``mim download --config NAME`` on the model index of the checkout; the files it wrote."""
    from mim.commands.search import convert2df, select_by
    from modelindex.load_model_index import load
    command = import_module('mim.commands.download')  # the package has a function of this name

    def call(name, drop_weights=False):
        index = load(str(ROOT / 'model-index.yml'))
        for model in index.models:
            if drop_weights and model.name == name:
                model.data.pop('Weights')
        table = select_by(convert2df(index), ['weight', 'config'])
        monkeypatch.setattr(command, 'get_model_info', lambda *_, **__: table.to_dict('index'))
        monkeypatch.setattr(command, 'is_installed', lambda package: True)
        monkeypatch.setattr(command, 'get_installed_path', lambda package: str(ROOT))
        monkeypatch.setattr(command, 'download_from_file',
                            lambda url, *_, **__: pytest.fail(f'{url} is no file to download'))
        command._download_configs('mmsparse', [name], str(tmp_path))
        return sorted(path.name for path in tmp_path.iterdir())
    return call


@pytest.mark.parametrize('name', ['wnet_hrf-1024x1104', Path(LOW).stem])
def test_mim_takes_the_words_for_a_file_that_is_there(download, name):
    """It writes the config, and looks for nothing on a network."""
    assert download(name) == [f'{name}.py']


def test_mim_demands_an_entry(download):
    """Why the words are there at all (docs/zoo.md): without the key mim ends in a traceback."""
    with pytest.raises(AttributeError, match='split'):
        download('wnet_hrf-1024x1104', drop_weights=True)


def test_weights_are_those_of_stock_models_or_none():
    """No weights of our own exist; those listed stand in mmseg's metafiles for the same config."""
    import mmseg
    from mmengine.config import Config
    folder = Path(mmseg.__file__).parent / '.mim' / 'configs'
    stock = {m['Config'].removeprefix('configs/'): m['Weights'] for path in
             folder.glob('*/metafile.yaml') for m in yaml.safe_load(path.read_text())['Models']}
    given = [m for m in models() if has_weights(m)]
    assert len(given) == 4
    for model in given:
        base = re.search(r"_base_ = 'mmseg::(.*)'", (ROOT / model['Config']).read_text())[1]
        assert model['Weights'] == stock[base]
        ours, theirs = Config.fromfile(ROOT / model['Config']), Config.fromfile(folder / base)
        for part in ('backbone', 'decode_head'):
            assert ours.model[part] == theirs.model[part]


def test_published_figures_are_the_papers_and_say_so():
    """Speed-ups of SparseRefine's supplement, Table 3; its Table 1 as on our page."""
    text = (ROOT / 'docs/sparserefine.md').read_text()
    found = {m['Name']: m for m in models() if 'inference time (ms/im)' in m['Metadata']}
    ratios = {'fcn-hr48': (1.65, 1.50), 'segformer-mit-b5': (3.65, 3.78),
              'mask2former-swin-t': (1.49, 1.48), 'mask2former-swin-l': (1.82, 1.97),
              'segnext-mscan-l': (1.70, 1.59)}
    assert len(found) == 3 * len(ratios)
    for name, expected in ratios.items():
        refined = found[f'sparserefine_{name}_8xb4-46k_cityscapes-1024x2048']
        dense, = (m for n, m in found.items() if re.match(f'{name}_.*1024x2048', n))
        for i, mode in enumerate(('FP16', 'FP32')):
            times = [m['Metadata']['inference time (ms/im)'][i] for m in (dense, refined)]
            assert all(t['mode'] == mode and '(paper)' in t['hardware'] for t in times)
            assert round(times[0]['value'] / times[1]['value'], 2) == expected[i]
        figures = refined['Results'][0]['Metrics']
        row = ' | '.join(f'{figures[f"selector {k} (paper)"]} %'
                         for k in ('recall', 'precision', 'density'))
        assert row in text
    zoo = {f'configs/{entry["config"]}': entry['results'] for entry in entries().values()}
    for model in models():
        metrics = model['Results'][0]['Metrics']
        measured = zoo.get(model['Config'], {})
        assert all('(paper)' in key or measured.get(key) == metrics[key] for key in metrics)


def config_files():
    return [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]


def test_every_config_is_in_the_index_and_exists():
    listed = [model['Config'] for model in models()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(path.relative_to(ROOT)) for path in config_files()}


def test_names_are_unique_and_those_of_the_configs():
    """mim looks a config up by its file name, in the whole package."""
    names = [path.name for path in (ROOT / 'configs').rglob('*.py')]
    assert len(names) == len(set(names))
    assert {model['Name'] for model in models()} == {path.stem for path in config_files()}


def test_every_metafile_is_imported():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    found = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml')}
    assert set(index['Import']) == found


def test_collections_and_readmes_exist():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections = {collection['Name'] for collection in metafile['Collections']}
        for model in metafile['Models']:
            assert model.get('In Collection') in collections | {None}
        for collection in metafile['Collections']:
            assert (ROOT / collection['README']).is_file()
