"""The converter of SwiftNet on synthetic checkpoints with the authors' names."""
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

SINGLE = 'swiftnet-ss_r18_1xb14-53k_cityscapes-768x768'
CVPR = 'swiftnet-ss-cvpr_r18_1xb14-53k_cityscapes-768x768'
PYRAMIDS = {name: f'swiftnet-{name}_r18_1xb14-53k_cityscapes-768x768'
            for name in ('pyr2', 'pyr3', 'pyr2-cvpr')}


def model(root, name):
    cfg = Config.fromfile(root / 'configs' / 'swiftnet' / f'{name}.py')
    init_default_scope(cfg.default_scope)
    net = MODELS.build(cfg.model)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    return net


def authors_name(key):
    """How the authors' code calls one of our entries, written down from its module tree."""
    parts = key.split('.')
    if parts[0] == 'decode_head':
        return f'logits.{"conv" if parts[1] == "conv_seg" else "norm"}.{parts[2]}'
    if parts[0] == 'backbone' and parts[1] == 'level_norms':
        return f'backbone.{parts[3].replace("/", ".")}.{int(parts[2]) + 1}.{parts[4]}'
    if parts[0] == 'backbone' and parts[1] == 'encoder':
        return 'backbone.' + '.'.join(parts[2:])  # norms per level: see below
    if parts[0] == 'backbone':
        return key
    if parts[1] == 'spp':
        name = dict(project='spp_bn', fuse='spp_fuse').get(parts[2], f'spp{parts[3]}')
        return f'backbone.spp.spp.{name}.{".".join(parts[-2:])}'
    if parts[1] == 'upsample':
        block = dict(bottleneck='bottleneck', blend='blend_conv')[parts[3]]
        return f'backbone.upsample.{parts[2]}.{block}.{".".join(parts[-2:])}'
    if parts[1] == 'blends':
        return f'backbone.upsample_blends.{parts[2]}.blend_conv.{".".join(parts[-2:])}'
    stage = 3 - int(parts[2])
    rest = parts[3:] if len(parts) == 5 else ['conv', *parts[3:]]
    return f'backbone.upsample_bottlenecks.{stage}.{".".join(rest)}'


def authors_state(net):
    """The state dict as the authors' model has it, with their color statistics."""
    per_level = getattr(net.backbone, 'level_norms', None) and len(net.backbone.level_norms[0])
    state = {'backbone.img_mean': torch.zeros(3), 'backbone.img_std': torch.ones(3)}
    for key, value in net.state_dict().items():
        name = authors_name(key)
        if per_level and key.startswith('backbone.encoder.'):
            *stem, norm, entry = name.split('.')
            if norm.startswith('bn'):
                name = '.'.join([*stem, norm, '0', entry])
        state[name] = value
    return state


def run(root, tmp_path, state, name, *options):
    torch.save(state, tmp_path / 'theirs.pt')
    return subprocess.run(
        [sys.executable, 'tools/model_converters/swiftnet.py', tmp_path / 'theirs.pt',
         f'configs/swiftnet/{name}.py', tmp_path / 'ours.pth', *options],
        cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize('name', [SINGLE, CVPR, *PYRAMIDS.values()])
def test_a_round_through_the_authors_names(root, tmp_path, name):
    net = model(root, name)
    result = run(root, tmp_path, authors_state(net), name)
    assert result.returncode == 0, result.stderr
    found = torch.load(tmp_path / 'ours.pth')['state_dict']
    wanted = net.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    net.load_state_dict(found, strict=True)


def test_nothing_is_written_over(root, tmp_path):
    name, net = SINGLE, model(root, SINGLE)
    (tmp_path / 'ours.pth').touch()
    again = run(root, tmp_path, authors_state(net), name)
    assert again.returncode == 1 and 'ours.pth exists; --force' in again.stderr
    assert run(root, tmp_path, authors_state(net), name, '--force').returncode == 0


@pytest.mark.parametrize(('source', 'target', 'message'), [
    (CVPR, SINGLE, 'the classifier: 3x3 and 19 classes in the weights, 1x1 and 19 in the config'),
    (CVPR, SINGLE, 'the classifier has a bias only in the config'),
    (PYRAMIDS['pyr3'], SINGLE, 'one of the two is a pyramid'),
    (PYRAMIDS['pyr3'], PYRAMIDS['pyr2'],
     'norms of 3 level(s) in the weights, of 2 in the config'),
    (SINGLE, 'swiftnet-ss_r34_1xb14-53k_cityscapes-768x768', 'the checkpoint lacks')])
def test_a_wrong_preset_is_explained(root, tmp_path, source, target, message):
    result = run(root, tmp_path, authors_state(model(root, source)), target)
    assert result.returncode == 1 and message in result.stderr
    assert not (tmp_path / 'ours.pth').exists()
