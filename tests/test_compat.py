"""The stack table, the checks, the sparse engine, and the config prefixes."""

import inspect
import re
import subprocess
import sys
import warnings
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmsparse import compat
from mmsparse.compat import ONEDL, STACKS, STOCK, IncompatibleStackError
from mmsparse.engine.config import read_config
from tests.wheel import needs_wheel


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these distributions are installed."""

    def pretend(**versions):
        versions = {name.replace('_', '-'): version for name, version in versions.items()}

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, 'version', version)
        monkeypatch.setattr(metadata, 'distributions', lambda: [
            SimpleNamespace(metadata={'Name': n}, version=v) for n, v in versions.items()])
        forget()

    def forget():
        for cached in compat.channel_conversion, compat.spconv_wheel, compat.find_spconv:
            cached.cache_clear()

    yield pretend
    monkeypatch.undo()
    forget()


def versions_of(stack):
    return dict(stack.packages.values())


@pytest.mark.parametrize('stack', STACKS, ids=lambda stack: stack.name)
def test_each_stack_is_recognized(stack, installed):
    installed(**versions_of(stack))
    assert compat.installed_stack() is stack


@pytest.mark.parametrize('stack', STACKS, ids=lambda stack: stack.name)
def test_missing_package_is_named_with_its_remedy(stack, installed):
    versions = versions_of(stack)
    distribution = stack.packages['mmcv'][0]
    del versions[distribution]
    installed(**versions)
    with pytest.raises(IncompatibleStackError, match=rf'{distribution} .*mmsparse\[{stack.name}\]'):
        compat.installed_stack()


def test_two_stacks_at_once_are_refused(installed):
    installed(**versions_of(STOCK), onedl_mmengine='0.10.12')
    with pytest.raises(IncompatibleStackError, match='both stacks.*onedl-mmengine'):
        compat.installed_stack()


def test_nothing_installed(installed):
    installed()
    with pytest.raises(IncompatibleStackError, match='mmengine, mmcv, mmdet, mmsegmentation'):
        compat.installed_stack()


def test_this_environment_is_one_of_them():
    assert compat.installed_stack() in STACKS


def test_tables_agree_with_the_constraints_and_the_extras(root):
    """The versions stand in three files, for three readers; they are the same."""
    setup = (root / 'setup.cfg').read_text()
    for stack in STACKS:
        pins = (root / 'requirements' / f'{stack.name}.txt').read_text().splitlines()
        for distribution, version in stack.packages.values():
            assert f'{distribution}=={version}' in pins
            assert f'\n    {distribution}=={version}\n' in setup
        for requirement in re.findall(r'"(.+?)"', stack.spconv):
            assert f'\n    {requirement}\n' in setup


@pytest.mark.parametrize('turns', [False, True])
@pytest.mark.parametrize('stack, name', [
    (STOCK, 'channel_conversion'), (ONEDL, '_channel_conversion')],
    ids=lambda value: value if isinstance(value, str) else value.name)
def test_preprocessors_of_both_stacks_tell_whether_they_turn_channels(
        stack, name, turns, installed):
    installed(**versions_of(stack))
    assert compat.turns_channels(SimpleNamespace(**{name: turns})) is turns


# ---- The library of sparse convolutions ----


@pytest.mark.parametrize('name', ['spconv-cu120', 'spconv-cu126', 'spconv_cu118'])
def test_cuda_wheels_are_usable(name, installed):
    installed(**{name: '2.3.6'})
    wheel = compat.spconv_wheel()
    assert wheel.usable
    assert wheel.distribution == name.replace('_', '-')


@pytest.mark.parametrize('others', [{}, {'spconv-cu120': '2.3.6'}])
def test_cpu_only_wheel_is_refused_by_name(installed, others):
    """Also beside a good one: both install the same folder."""
    installed(spconv='2.3.8', **others)
    with pytest.raises(ImportError, match=r'spconv 2\.3\.8: .*data race.*pip uninstall -y spconv'):
        compat.find_spconv()


def test_no_spconv_says_how_to_get_one(installed):
    installed()
    with pytest.raises(ImportError, match='pip install "spconv-cu1'):
        compat.find_spconv()


def test_command_fits_the_python(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 12, 0))
    assert compat.spconv_command() == f'pip install {ONEDL.spconv}'  # cu120 has no wheel there
    monkeypatch.setattr(sys, 'version_info', (3, 11, 0))
    assert compat.spconv_command() == f'pip install {STOCK.spconv}'


@pytest.mark.parametrize(('wheels', 'capability', 'taken'), [
    ({'spconv-triton': '1.0.0'}, None, 'spconv-triton'),
    ({'spconv-triton': '1.0.0', 'spconv-cu120': '2.3.6'}, None, 'spconv-cu120'),
    ({'spconv-triton': '1.0.0', 'spconv-cu120': '2.3.6'}, (9, 0), 'spconv-cu120'),
    ({'spconv-triton': '1.0.0', 'spconv-cu120': '2.3.6'}, (12, 0), 'spconv-triton'),
    ({'spconv-triton': '1.0.0', 'spconv': '2.3.8'}, None, 'spconv-triton'),
    ({'spconv-cu126': '2.3.8'}, (12, 0), 'spconv-cu126')])
def test_triton_is_taken_where_it_is_needed(installed, monkeypatch, wheels, capability, taken):
    for name, value in dict(is_available=capability is not None, device_count=1,
                            get_device_capability=capability).items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    installed(**wheels)
    wheel = compat.spconv_wheel()
    assert wheel.usable and wheel.distribution == taken
    assert ('pip install spconv-triton' in wheel.reason) == (
        capability == (12, 0) and taken != 'spconv-triton')


def test_triton_has_the_names_that_are_used(monkeypatch):
    """Its kernels need a GPU; its names and signatures do not."""
    ours = compat.find_spconv()
    monkeypatch.setattr(compat, 'spconv_wheel', lambda: compat.SpconvWheel(
        'spconv-triton', '1.0.0', 'spconv_triton', True, ''))
    theirs = compat.find_spconv.__wrapped__()
    assert theirs.SparseConvTensor is not ours.SparseConvTensor
    forward = inspect.signature(theirs.SparseConvolutionBase._conv_forward).parameters
    assert len([p for p in forward.values() if p.default is p.empty]) == 5  # called by position
    assert {'indice_key', 'algo', 'subm', 'inverse', 'stride', 'padding', 'bias'} <= set(
        inspect.signature(theirs.SparseConvolutionBase.__init__).parameters)
    x = theirs.SparseConvTensor(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int32), [4, 5], 1)
    assert x.replace_feature(torch.ones(2, 4)).features.shape == (2, 4)
    assert theirs.ConvAlgo.MaskImplicitGemm.name == ours.ConvAlgo.MaskImplicitGemm.name


def test_find_spconv_returns_the_three_names():
    assert all(isinstance(each, type) for each in compat.find_spconv())


# ---- Config prefixes ----


@pytest.mark.parametrize('base, key', [
    ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'roi_head'),
])
def test_stock_prefixes_resolve(base, key, tmp_path):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        cfg = Config.fromfile(tmp_path / 'config.py')
    assert key in cfg.model


def test_prefixes_twice_are_once():
    before = dict(MODULE2PACKAGE)
    compat.add_config_prefixes()
    assert MODULE2PACKAGE == before
    assert MODULE2PACKAGE['mmsparse'] == 'mmsparse'


@needs_wheel
def test_a_config_inherited_from_the_package_builds(tmp_path):
    """Names without a prefix in our configs are mmseg's, whoever inherits them."""
    from mmengine.registry import MODELS, init_default_scope
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmsparse::sparserefine/sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'\n"
        'model = dict(segmentor_checkpoint=None, selector=dict(alpha=0.5))\n')
    cfg = read_config(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert model.selector.threshold == 0.5
    assert type(model.data_preprocessor).__name__ == 'SegDataPreProcessor'


# ---- A good guest -------------------------------------------------------------------------------

GUEST = '''
import importlib, os, pkgutil, sys, types, warnings
warnings.simplefilter('ignore')
HOSTS = ('torch', 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'numpy', 'cv2', 'pickle', 'logging')
import torch, mmengine.runner, mmengine.hub, mmengine.analysis, mmcv.ops, mmseg.apis, mmdet.apis
import torch.hub, torch.utils.flop_counter, torch._dynamo, mmdet.evaluation, mmseg.evaluation
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry, root
from mmengine.runner.checkpoint import CheckpointLoader


def functions_of(name, part, found):
    for key, value in list(vars(part).items()):
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, types.FunctionType):
            found[name, key] = (value, value.__code__, value.__defaults__)
        elif isinstance(value, (type, types.BuiltinFunctionType)):
            found[name, key] = value
        if isinstance(value, type) and isinstance(part, types.ModuleType) and (
                value.__module__ == part.__name__):
            functions_of(f'{name}.{key}', value, found)
        if isinstance(value, Registry) and value.scope != 'mmsparse':
            found[name, key] = dict(value.module_dict)
    return found


def snapshot():
    found = {'environment': dict(os.environ), 'schemes': dict(CheckpointLoader._schemes),
             'torch list': set(torch.serialization.get_safe_globals()), 'path': list(sys.path),
             'hook': sys.excepthook, 'threads': torch.get_num_threads(),
             'filters': list(warnings.filters), 'dtype': torch.get_default_dtype(),
             'prefixes': {k: v for k, v in MODULE2PACKAGE.items()
                          if k not in ('mmseg', 'mmdet', 'mmsparse')}}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in HOSTS and isinstance(module, types.ModuleType):
            functions_of(name, module, found)
    return found

from mmdet.utils import register_all_modules as register_mmdet
from mmseg.utils import register_all_modules as register_mmseg
register_mmdet(False)
register_mmseg(False)
first = snapshot()
import mmsparse
second = snapshot()
for module in pkgutil.walk_packages(mmsparse.__path__, 'mmsparse.'):
    importlib.import_module(module.name)
third = snapshot()
print(len(first))
for after in (second, third):
    print('changed:', [key for key, value in first.items() if after.get(key) != value])
'''


def test_importing_changes_nothing_outside():
    """Of some ten thousand functions of the hosts, with code and defaults, their registries,
    torch's list, mmengine's loaders and the process; by ``import mmsparse`` and every module."""
    done = subprocess.run([sys.executable, '-c', GUEST], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    count, *changes = done.stdout.splitlines()[-3:]
    assert int(count) > 10000
    assert changes == ['changed: []'] * 2
