"""A name imports its own module and what that needs; the tables of names are whole."""

import json
import re
import subprocess
import sys

import pytest

from mmsparse.compat import STOCK, installed_stack

# What needs mmdet: one method, and what works on instances.
NEEDS_MMDET = {'mmsparse.models.crm.detector', 'mmsparse.datasets.scene_instances',
               'mmsparse.evaluation.boundary_coco', 'mmsparse.evaluation.boundary_lvis'}
# Stock mmseg imports mmcv, for its version; the forks' does not.
MMSEG = {'mmcv', 'mmseg'} if installed_stack() is STOCK else {'mmseg'}
# Of each method a module without mmseg's models, which take seconds and import mmdet themselves.
LIGHT = {'mmsparse.models.sparserefine.extractor': set(), 'mmsparse.models.wnet.backbone': set(),
         'mmsparse.models.crm.head': set(), 'mmsparse.models.crm.refiner': MMSEG,
         'mmsparse.models.effseg.mask_head': {'mmcv'}}

# Each module's names are looked up in a process of its own, forked before any of mmsparse's modules
# is imported.
SCRIPT = '''
import importlib, json, os, pkgutil, sys
import torch, mmengine.model, mmengine.registry as roots
REGISTERED, LIGHT, PACKAGES = json.loads(sys.argv[1])

def look_up(module):
    """The modules imported then; if a name is not found, why."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            for registry, name in REGISTERED[module]:
                found = getattr(roots, registry).get('mmsparse.' + name)
                assert found.__module__ == module, found
            answer = list(sys.modules)
        except Exception as error:
            answer = repr(error)
        with open(write, 'w') as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(write)
    with open(read) as file:
        answer = json.load(file)
    os.wait()
    return answer

light = {module: look_up(module) for module in LIGHT}
sys.modules['mmdet'] = None  # as if it were not installed, which mmseg allows
import mmseg.apis
stack_has_compiler = 'torch._dynamo' in sys.modules
without_mmdet = {module: look_up(module) for module in REGISTERED}
del sys.modules['mmdet']
import mmdet.apis
with_mmdet = {module: look_up(module) for module, answer in without_mmdet.items()
              if isinstance(answer, str)}

import mmsparse
packages = {key: importlib.import_module(key) for key in PACKAGES}
unknown = [(key, name) for key, package in packages.items() for name in package.__all__
           if name not in dir(package) or not hasattr(package, name)]
for module in pkgutil.walk_packages(mmsparse.__path__, 'mmsparse.'):
    importlib.import_module(module.name)
registries = {key: sorted(value.module_dict) for key, value in vars(mmsparse.registry).items()
              if isinstance(value, roots.Registry) and value.scope == 'mmsparse'}
print(json.dumps(dict(
    stack_has_compiler=stack_has_compiler, light=light, without_mmdet=without_mmdet,
    with_mmdet=with_mmdet, unknown=unknown, registries=registries,
    tables={key: package.__all__ for key, package in packages.items()})))
'''


@pytest.fixture(scope='module')
def registered(root):
    """As the source has it: the registry and name of every component, by module."""
    found = {}
    for path in sorted((root / 'mmsparse').rglob('*.py')):
        for registry, names, name in re.findall(
                r'^@(\w+)\.register_module\((.*?)\)\nclass (\w+)', path.read_text(), re.M):
            module = '.'.join(path.relative_to(root).with_suffix('').parts)
            found.setdefault(module, []).extend(
                (registry, each) for each in re.findall(r"'(\w+)'", names) or [name])
    return found


@pytest.fixture(scope='module')
def seen(root, registered):
    packages = ['.'.join(path.parent.relative_to(root).parts)
                for path in (root / 'mmsparse').rglob('__init__.py')
                if '= attach(' in path.read_text()]
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT,
         json.dumps([registered, list(LIGHT), packages])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def rooms(modules):
    """The methods of which a module is imported, beside the room's table."""
    return {key.split('.')[2] for key in modules
            if key.startswith('mmsparse.models.') and key.count('.') > 2}


@pytest.mark.parametrize('module', LIGHT)
def test_a_method_imports_itself(seen, module):
    """Neither another method nor a host's models."""
    imported = seen['light'][module]
    assert rooms(imported) == {module.split('.')[2]}
    assert {'mmcv', 'mmseg', 'mmdet'}.intersection(imported) == LIGHT[module]
    assert 'mmseg.models' not in imported


def test_no_name_imports_the_compiler(seen):
    """It takes a second: mmsparse leaves it to torch and its hosts whether they want it."""
    imported = seen['without_mmdet'].values()
    assert seen['stack_has_compiler'] or not any('torch._dynamo' in names for names in imported)


def test_every_name_is_found_alone(seen, registered):
    assert len(registered) > 40
    for module in registered:
        imported = seen['with_mmdet'].get(module, seen['without_mmdet'][module])
        assert not isinstance(imported, str), (module, imported)
        assert rooms(imported) <= {module.split('.')[2]}, module


def test_only_instances_need_mmdet(seen):
    """All else is found where it is not installed."""
    needing = {module for module in seen['with_mmdet'] if '.effseg.' not in module}
    assert needing == NEEDS_MMDET


def test_tables_are_whole(seen, registered):
    """All that registers itself is in a table, and all that a table names is there."""
    names = [each for found in registered.values() for each in found]
    assert sorted(map(tuple, names)) == sorted(
        (registry, name) for registry, found in seen['registries'].items() for name in found)
    assert {name for _, name in names} <= {name for table in seen['tables'].values()
                                           for name in table}
    assert not seen['unknown']


def test_no_name_is_also_a_module(root, seen):
    """Python would give the one or the other, whichever is imported first."""
    assert len(seen['tables']) > 10
    for package, table in seen['tables'].items():
        folder = root.joinpath(*package.split('.'))
        assert not {path.stem for path in folder.iterdir()}.intersection(table), package
