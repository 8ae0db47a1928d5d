"""mim finds the installed wheel and runs its tools: each command as a user calls it.

The commands run in another folder and without the checkout on the path, so that nothing but the
wheel is there to be found.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from mmsparse.compat import STOCK, installed_stack

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


def wheel_files() -> list:
    """Files of the installed wheel below ``mmsparse/.mim``."""
    try:
        files = metadata.files('mmsparse') or []
    except metadata.PackageNotFoundError:
        return []
    return [file for file in files if str(file).startswith('mmsparse/.mim/')]


needs_wheel = pytest.mark.skipif(
    not wheel_files(), reason='no wheel of mmsparse is installed here; `make test` does that')


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


@needs_wheel
def test_run(tmp_path):
    output = mim('run', 'mmsparse', 'doctor', cwd=tmp_path)
    assert 'sparse engine' in output
    assert 'nothing is broken' in output


@needs_wheel
def test_search(tmp_path):
    mim('search', 'mmsparse', '--json', 'found.json', cwd=tmp_path)
    found = json.loads((tmp_path / 'found.json').read_text())
    assert set(found['config']) == {model['Name'] for model in models()}
    output = mim('search', 'mmsparse', '--dataset', 'cityscapes', '--display-width', '200',
                 cwd=tmp_path)
    assert 'sparserefine_fcn-hr48' in output
    assert 'scenes' not in output.lower()


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
