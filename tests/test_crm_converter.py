"""The converter of CRM on synthetic checkpoints with the authors' names."""
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

CRM = 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'


def authors_crm(root):
    """Our CRM and its weights as the authors' file names and orders them, an unused stage too."""
    cfg = Config.fromfile(root / CRM)
    init_default_scope(cfg.default_scope)
    net = MODELS.build(cfg.model)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    theirs = {}
    for key, value in net.state_dict().items():
        part, rest = key.split('.', 1)
        if part == 'backbone':
            theirs[f'module.feats.{rest}'] = value
        elif part == 'head':
            number, entry = rest.split('.')[1:]
            theirs[f'module.imnet.layers.{2 * int(number)}.{entry}'] = value
    theirs['module.feats.layer4.0.conv1.weight'] = torch.zeros(512, 1024, 1, 1)
    for place in ('branches.2', 'branches.0', 'branches.1', 'blend'):  # any order
        for key, value in net.state_dict().items():
            if key.startswith(f'neck.{place}.'):
                number, entry = key.removeprefix(f'neck.{place}.').split('.')
                theirs[f'module.aspp_{place.replace(".", "")}_{number}.{entry}'] = value
    return net, theirs


def convert_crm(root, tmp_path, state):
    torch.save(state, tmp_path / 'theirs.pth')
    return subprocess.run(
        [sys.executable, '-W', 'ignore', str(root / 'tools/model_converters/crm.py'),
         str(tmp_path / 'theirs.pth'), str(root / CRM), str(tmp_path / 'ours.pth'), '--force'],
        capture_output=True, text=True)


def test_crm(root, tmp_path):
    net, theirs = authors_crm(root)
    done = convert_crm(root, tmp_path, theirs)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / 'ours.pth', map_location='cpu')['state_dict']
    assert found.keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s: s.pop('imnet.layers.4.bias'), 'lacks 1 entries, the first is head.layers.2.bias'),
    (lambda s: s.update(extra=torch.zeros(1)), "extra is not one of CRM's entries"),
    (lambda s: s.update({'aspp_x.weight': torch.zeros(7, 7, 1, 1)}), 'has no place in the fusion'),
    (lambda s: s.update({'imnet.layers.0.weight': torch.zeros(32, 260)}),
     '1 entries have other shapes, the first is head.layers.0.weight')])
def test_crm_misfits(root, tmp_path, change, message):
    _, theirs = authors_crm(root)
    theirs = {key.removeprefix('module.'): value for key, value in theirs.items()}
    change(theirs)
    done = convert_crm(root, tmp_path, theirs)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / 'ours.pth').exists()
