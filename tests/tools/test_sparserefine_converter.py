"""SparseRefine's converter on the authors' keys; what it makes of the values:
tests/models/sparserefine/test_authors.py."""
import importlib

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests import authors
from tests.models.sparserefine.converted import NARROW, converted, head_cfg
from tests.models.tiny import PREPROCESSOR

CONFIGS = {  # the authors' configs of the first two have six stages, the paper's of the second five
    'sparserefine_refiner_hrnet48': 'fcn-hr48_released',
    'sparserefine_refiner_mask2former_swint': 'mask2former-swin-t-6stage',
    'sparserefine_refiner_5stages_as_in_paper': 'mask2former-swin-t',
}


@pytest.mark.parametrize(('keys', 'name'), CONFIGS.items())
def test_the_published_sizes_fit_the_configs(root, monkeypatch, keys, name):
    monkeypatch.syspath_prepend(root / 'tools' / 'model_converters')
    convert = importlib.import_module('sparserefine').convert
    state = {key: torch.empty(shape, dtype=getattr(torch, dtype), device='meta')
             for key, shape, dtype in authors.entries(keys)}
    cfg = Config.fromfile(root / f'configs/sparserefine/sparserefine_{name}_8xb4-46k_cityscapes-'
                          '1024x2048.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        head = MODELS.build(cfg.model.decode_head | dict(num_classes=19))
    found = {key.removeprefix('decode_head.'): value for key, value in convert(state).items()}
    head.load_state_dict(found, strict=True, assign=True)


def test_a_learned_selector_comes_with_the_refiner(root, tmp_path):
    state = authors.state(NARROW) | {f'selector.{key}': value for key, value in authors.state(
        'sparserefine_learnable_selector', 'selector.').items()}
    found = converted(root, tmp_path, state, selector=dict(type='mmsparse.LearnableSelector'))
    assert len(found) == 162 + 10 and not any(k.startswith('segmentor.') for k in found)
    assert found['selector.classifier.0.weight'].shape == (32, 35, 1, 1)


def test_settings_of_another_function_are_named(root, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        converted(root, tmp_path, authors.state(NARROW), data_preprocessor=PREPROCESSOR,
                  decode_head=head_cfg(down_padding=1))
    assert not (tmp_path / 'ours.pth').exists()
    for message in ('extractor.down_padding must be 0 for these weights, the config has 1',
                    'data_preprocessor.bgr_to_rgb must be False for these weights'):
        assert message in str(stopped.value)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s: s.pop('classifier.bias'), 'lacks 1 entries, the first is decode_head.classifier.b'),
    (lambda s: s.update(extra=torch.zeros(1)), "extra is not one of SparseRefine's entries"),
    (lambda s: s.update({'backbone.net.1.5.kernel': torch.zeros(9, 8, 8)}),
     "backbone.net.1.5.kernel is not one of SparseRefine's entries"),
    (lambda s: s.update({'backbone.net.0.kernel': torch.zeros(27, 3, 8)}),
     'a kernel must have 9 taps, 3 x 3, got 27'),
    (lambda s: s.update({'classifier.bias': torch.zeros(11)}),
     '1 entries have other shapes, the first is decode_head.classifier.bias')])
def test_misfits(root, tmp_path, change, message):
    state = authors.state(NARROW)
    change(state)
    with pytest.raises(SystemExit, match=message):
        converted(root, tmp_path, state)
    assert not (tmp_path / 'ours.pth').exists()
