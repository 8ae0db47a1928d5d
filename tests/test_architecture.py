"""The floors of the house: imports point down, and each floor knows only what it may."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import mmengine.registry
import pytest

import mmsparse.registry

REGISTRIES = {name: registry for name, registry in vars(mmsparse.registry).items()
              if getattr(registry, 'scope', None) == 'mmsparse'}


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


def imported_names(path):
    """The pairs of a module of ours and a name that a file takes from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level and (
                node.module.split('.')[0] in ('mmsparse', 'tests')):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize('folder', ['tests', 'tools', 'projects'])
def test_names_that_are_imported_exist(root, folder):
    """Also in what runs by night, on a GPU or by hand, which nobody would see fail by day."""
    names = {pair: path for path in sorted((root / folder).rglob('*.py'))
             for pair in imported_names(path)}
    assert len(names) > 20
    missing = []
    for (module, name), path in names.items():
        found = importlib.import_module(module)
        is_module = hasattr(found, '__path__') and importlib.util.find_spec(f'{module}.{name}')
        if not is_module and not hasattr(found, name):
            missing.append(f'{path.relative_to(root)}: {module} has no {name}')
    assert not missing, missing


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


def test_registries_are_children_of_mmengines():
    """And of the root of their own name."""
    assert {'MODELS', 'DATASETS', 'HOOKS'} <= set(REGISTRIES)
    for name, registry in REGISTRIES.items():
        assert registry.parent is getattr(mmengine.registry, name), name


@pytest.mark.parametrize('name', REGISTRIES)
def test_locations_of_registries_exist(name):
    registry = REGISTRIES[name]
    registry.import_from_location()
    assert registry._imported
    for location in registry._locations:
        assert sys.modules[location].__all__, location


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


def test_no_test_imports_another(root):
    """What two of them need is a module of its own: a builder, an oracle, a worker."""
    for path in (root / 'tests').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (
                    node.level or node.module.startswith('tests')):
                names = [node.module or '', *(alias.name for alias in node.names)]
            else:
                continue
            parts = [part for name in names for part in name.split('.')]
            assert not [part for part in parts if part.startswith('test_')], (path, node.lineno)


def test_tests_lie_where_the_package_has_them(root):
    """A folder of tests for each method, room and for the tools; none for what is gone."""
    homes = {path.parent.relative_to(root / 'tests')
             for path in (root / 'tests').rglob('test_*.py')}
    for home in homes - {Path('.'), Path('tools'), Path('projects')}:
        assert (root / 'mmsparse' / home).is_dir(), home
    for method in (root / 'mmsparse' / 'models').iterdir():
        if (method / '__init__.py').is_file():
            assert method.relative_to(root / 'mmsparse') in homes, method


def test_the_quick_tests_are_there(root):
    """Each line of the list is a file of tests, or a test; each method has one."""
    lines = (root / 'tests' / 'quick.txt').read_text().split()
    for line in lines:
        file, _, name = line.partition('::')
        tree = ast.parse((root / file).read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert any(n == name if name else n.startswith('test_') for n in names), line
    for method in (root / 'mmsparse' / 'models').iterdir():
        if (method / '__init__.py').is_file():
            assert any(line.startswith(f'tests/models/{method.name}/') for line in lines), method
