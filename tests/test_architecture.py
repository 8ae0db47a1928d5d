"""The floors of the house: imports point down, and each floor knows only what it may."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmsparse.registry


def lint(root, config='setup.cfg', **kwargs):
    command = [str(Path(sys.executable).with_name('lint-imports')), '--config', str(config),
               '--no-cache']
    return subprocess.run(command, cwd=root, capture_output=True, text=True, **kwargs)


def test_imports_point_down(root):
    result = lint(root)
    assert result.returncode == 0, result.stdout
    assert re.search(r'Contracts: \d+ kept, 0 broken', result.stdout)


def test_the_contracts_can_break(root, tmp_path):
    """Turned upside down, the first contract fails."""
    text = (root / 'setup.cfg').read_text()
    layers = re.search(r'^layers =\n((?:    .+\n)+)', text, re.MULTILINE)[1]
    flipped = text.replace(layers, ''.join(reversed(layers.splitlines(keepends=True))), 1)
    assert flipped != text
    (tmp_path / 'flipped.cfg').write_text(flipped)
    assert 'An import points down BROKEN' in lint(root, tmp_path / 'flipped.cfg').stdout


def test_only_compat_knows_the_stack(root):
    """The forks' distribution names appear in one module."""
    knowing = [path.name for path in (root / 'mmsparse').rglob('*.py')
               if 'onedl' in path.read_text()]
    assert knowing == ['compat.py']


def test_importing_the_package_loads_no_component():
    code = ('import sys, mmsparse\n'
            'heavy = ("mmseg", "mmdet", "mmcv", "spconv", "mmsparse.models", "mmsparse.datasets")\n'
            'print([name for name in heavy if name in sys.modules])')
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True,
                            text=True, check=True)
    assert result.stdout.strip() == '[]'


@pytest.mark.parametrize('name', ['MODELS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'HOOKS',
                                  'VISUALIZERS', 'TASK_UTILS'])
def test_locations_of_registries_exist(name):
    registry = getattr(mmsparse.registry, name)
    assert registry.scope == 'mmsparse'
    registry.import_from_location()
    assert registry._imported


@pytest.mark.parametrize('place', ['mmsparse/apis.py', 'mmsparse/engine', 'tools',
                                   'mmsparse/models/sparserefine'])
def test_a_model_is_known_by_its_class(root, place):
    """Not by an attribute, which another one may have as well."""
    path = root / place
    guessing = [file.name for file in (path.rglob('*.py') if path.is_dir() else [path])
                if 'hasattr(' in file.read_text()]
    assert not guessing


def test_no_grab_bag_modules(root):
    """A file is called by what is in it."""
    vague = {'utils.py', 'helpers.py', 'misc.py', 'common.py'}
    found = [path for folder in ('mmsparse', 'tools', 'tests')
             for path in (root / folder).rglob('*.py') if path.name in vague]
    assert not found
