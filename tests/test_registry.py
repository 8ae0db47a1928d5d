"""``type='mmsparse.X'`` resolves in stock configs, with nothing imported before."""

import subprocess
import sys

import pytest

FRESH = """
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
DefaultScope.get_instance('test', scope_name='{scope}')
for root, name in ((MODELS, 'SparseRefineSegmentor'), (MODELS, 'EntropySelector'),
                   (DATASETS, 'SceneDataset'), (TRANSFORMS, 'RenderScene')):
    with root.switch_scope_and_registry('{scope}') as registry:
        found = registry.get('mmsparse.' + name)
    assert found.__name__ == name and found.__module__.startswith('mmsparse.')
print('all found')
"""


def python(code):
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True,
                          text=True)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_prefix_resolves_without_custom_imports(scope):
    """In a fresh process, from the registries of a stock config's default scope."""
    result = python(FRESH.format(scope=scope))
    assert result.stdout.endswith('all found\n'), result.stderr


def test_stock_config_builds_ours(tmp_path):
    """A stock mmseg config in which one type is replaced, parsed and built with mmengine only."""
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmseg'\n"
                      "selector = dict(type='mmsparse.EntropySelector', alpha=0.3,\n"
                      '                num_classes=8)\n')
    code = ('from mmengine.config import Config\n'
            'from mmengine.registry import MODELS, init_default_scope\n'
            f'cfg = Config.fromfile({str(config)!r})\n'
            'init_default_scope(cfg.default_scope)\n'
            'print(type(MODELS.build(cfg.selector)).__name__)')
    result = python(code)
    assert result.stdout.split()[-1:] == ['EntropySelector'], result.stderr


def test_incomplete_stack_is_reported_through_mmengine():
    """mmengine swallows ImportErrors of a registry; ours must reach the user."""
    code = ('from importlib import metadata\n'
            'real = metadata.version\n'
            'def version(name):\n'
            "    if name in ('mmcv', 'onedl-mmcv'): raise metadata.PackageNotFoundError(name)\n"
            '    return real(name)\n'
            'metadata.version = version\n'
            'from mmengine.registry import MODELS\n'
            "MODELS.build(dict(type='mmsparse.EntropySelector', alpha=0.3))")
    result = python(code)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert 'IncompatibleStackError' in last
    assert 'mmcv' in last
