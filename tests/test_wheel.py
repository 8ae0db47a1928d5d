"""The wheel and the sdist: whole, well-formed, and enough beside an MM stack."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmsparse.version import __version__
from tests.environments import bare_environment


@pytest.fixture(scope='module')
def built(installer, tmp_path_factory):
    """(sdist, wheel) of the sources, copied as the installer does; the wheel through the sdist."""
    folder = tmp_path_factory.mktemp('built')
    for file in installer.sources():
        target = folder / 'sources' / file.relative_to(installer.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    sdist = build('build_sdist', folder / 'sources', folder)
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    return sdist, build('build_wheel', unpacked, folder)


def build(hook, source, target):
    """Call a PEP 517 hook; the file that it made."""
    code = ('import sys, setuptools.build_meta as backend\n'
            f'print(backend.{hook}(sys.argv[1]))')
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(target)], cwd=source,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return target / result.stdout.split()[-1]


def test_wheel_through_an_sdist_is_complete(built, root):
    """Configs, tools and the index travel through the sdist into the wheel, as mim wants them."""
    inside = set(zipfile.ZipFile(built[1]).namelist())
    for folder in ('configs', 'tools'):
        for path in (root / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'mmsparse/.mim/{path.relative_to(root)}' in inside
    assert 'mmsparse/.mim/model-index.yml' in inside
    for ending in ('.py', '.pyi', 'py.typed'):
        for path in (root / 'mmsparse').rglob(f'*{ending}'):
            assert str(path.relative_to(root)) in inside
    tops = {name.split('/')[0] for name in inside}
    assert {name for name in tops if not name.endswith('.dist-info')} == {'mmsparse'}
    assert not any('__pycache__' in name for name in inside)


def test_the_version_is_that_of_the_package(built):
    assert [path.name for path in built] == [
        f'mmsparse-{__version__}.tar.gz', f'mmsparse-{__version__}-py3-none-any.whl']


def test_a_package_index_would_take_both(built):
    """Metadata are whole, and the description renders."""
    pytest.importorskip('twine')
    result = subprocess.run([sys.executable, '-m', 'twine', 'check', '--strict', *map(str, built)],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_wheel_has_the_usual_form(built):
    """But for W004, modules that cannot be imported: mim looks for configs and tools in .mim."""
    pytest.importorskip('check_wheel_contents')
    result = subprocess.run(
        [sys.executable, '-m', 'check_wheel_contents', '--ignore', 'W004', str(built[1])],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['sdist', 'wheel'])
def test_beside_a_stack_nothing_else_is_installed(installer, built, tmp_path, kind):
    """In an environment that has an MM stack, without an index: mmsparse alone, and it works."""
    environment = bare_environment(installer, tmp_path / 'bare')
    clean = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    report = tmp_path / 'report.json'
    command = [environment.python, '-m', 'pip', 'install', '--no-index', '--no-build-isolation',
               '--report', str(report), str(built[kind == 'wheel'])]
    result = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    installed = json.loads(report.read_text())['install']
    assert [entry['metadata']['name'] for entry in installed] == ['mmsparse']
    code = ('import mmsparse, numpy as np\n'
            'from mmsparse.apis import inference, init_model\n'
            'model = init_model("mmsparse://wnet_hrf", device="cpu")\n'
            'print(inference(model, np.zeros((64, 64, 3), np.uint8)).pred_sem_seg.shape)\n'
            'print(mmsparse.__file__, mmsparse.__version__)')
    result = subprocess.run([environment.python, '-W', 'ignore', '-c', code], cwd=tmp_path,
                            env=clean, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    shape, place = result.stdout.splitlines()[-2:]
    assert shape == '(64, 64)'
    file, version = place.rsplit(' ', 1)
    assert Path(file).is_relative_to(environment.path) and version == __version__
