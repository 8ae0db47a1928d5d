"""The converter of CRM on a file as the authors' code writes it."""
import runpy
import sys

import pytest
import torch

from tests import authors

CONFIG = 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'


@pytest.fixture
def convert(root, tmp_path, monkeypatch):
    """Run the command in this process on a state dict; our state dict comes back."""
    def command(state, config=CONFIG):
        torch.save(state, tmp_path / 'theirs.pth')
        script = root / 'tools' / 'model_converters' / 'crm.py'
        monkeypatch.syspath_prepend(script.parent)
        monkeypatch.setattr(sys, 'argv', [str(script), str(tmp_path / 'theirs.pth'),
                                          str(root / config), str(tmp_path / 'ours.pth')])
        runpy.run_path(str(script), run_name='__main__')
        return torch.load(tmp_path / 'ours.pth', map_location='cpu')['state_dict']
    return command


@pytest.fixture(scope='module')
def theirs():
    """All entries under their true names and in their true order."""
    return authors.state('crm_resnet50')


# Where each module of the fusion and of the implicit function goes; three branches, two norms each.
PLACES = {
    'aspp_.aspp1_128.atrous_conv': 'neck.branches.0.0', 'aspp_.aspp1_128.bn': 'neck.branches.0.1',
    'aspp_.aspp1_256.atrous_conv': 'neck.branches.1.0', 'aspp_.aspp1_256.bn': 'neck.branches.1.1',
    'aspp_.aspp1_1024.atrous_conv': 'neck.branches.2.0', 'aspp_.aspp1_1024.bn': 'neck.branches.2.1',
    'aspp_.bn1_128': 'neck.branches.0.3', 'aspp_.bn1_256': 'neck.branches.1.3',
    'aspp_.bn1_1024': 'neck.branches.2.3',
    'aspp_.last_conv.0': 'neck.blend.0', 'aspp_.last_conv.1': 'neck.blend.1',
    'imnet.layers.0': 'head.layers.0', 'imnet.layers.2': 'head.layers.1',
    'imnet.layers.4': 'head.layers.2', 'imnet.layers.6': 'head.layers.3',
    'imnet.layers.8': 'head.layers.4'}


@pytest.mark.parametrize('change', [
    lambda s: s,
    lambda s: {f'module.{key}': value for key, value in s.items()},
    lambda s: dict(reversed(s.items()))], ids=['as saved', 'data parallel', 'any order'])
def test_every_entry_goes_by_its_name(convert, theirs, change):
    expected = {}
    for key, value in theirs.items():
        module, entry = key.rsplit('.', 1)
        if module in PLACES:
            expected[f'{PLACES[module]}.{entry}'] = value
        elif not key.startswith('feats.layer4.'):
            expected['backbone.' + key.removeprefix('feats.')] = value
    assert len(theirs) == 367 and len(expected) == 367 - 60
    found = convert(change(theirs))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s: s.pop('imnet.layers.4.bias'), 'lacks 1 entries, the first is head.layers.2.bias'),
    (lambda s: s.pop('aspp_.bn1_256.weight'),
     'lacks 1 entries, the first is neck.branches.1.3.weight'),
    (lambda s: s.update(extra=torch.zeros(1)), "extra is not one of CRM's entries: feats"),
    (lambda s: s.update({'aspp_.aspp2_128.bn.weight': torch.zeros(64)}),
     "aspp_.aspp2_128.bn.weight is not one of CRM's entries"),
    (lambda s: s.update({'imnet.layers.1.weight': torch.zeros(32, 32)}),
     "imnet.layers.1.weight is not one of CRM's entries"),
    (lambda s: s.update({'aspp_.last_conv.0.bias': torch.zeros(256)}),
     'has, and the config has not, 1 entries, the first is neck.blend.0.bias'),
    (lambda s: s.update({'aspp_.aspp1_256.atrous_conv.weight': torch.zeros(64, 128, 1, 1)}),
     '1 entries have other shapes, the first is neck.branches.1.0.weight')])
def test_what_does_not_fit_is_named(convert, tmp_path, theirs, change, message):
    state = dict(theirs)
    change(state)
    with pytest.raises(SystemExit, match=message):
        convert(state)
    assert not (tmp_path / 'ours.pth').exists()


def test_another_config_is_refused(convert, tmp_path, theirs):
    with pytest.raises(SystemExit, match='2 entries have other shapes, the first is neck.branches'):
        convert(theirs, CONFIG.replace('r50', 'r50-conv2'))
    assert not (tmp_path / 'ours.pth').exists()
