"""W-Net against its layers written out by the released file's names, and its two losses."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.models.wnet import WNet


@pytest.fixture
def cfg(root):
    cfg = Config.fromfile(root / 'configs/_base_/models/wnet.py')
    init_default_scope('mmseg')
    return cfg.model


def unet(state, prefix, x):
    """One U-Net in evaluation mode, layer by layer."""
    def norm(x, key):
        mean, var, scale, shift = (state[f'{prefix}.{key}.{name}'][:, None, None] for name in (
            'running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x, key, padding=1):
        return F.conv2d(x, state[f'{prefix}.{key}.weight'], state.get(f'{prefix}.{key}.bias'),
                        padding=padding)

    def block(x, key):
        shortcut = norm(conv(x, f'{key}.shortcut.0', 0), f'{key}.shortcut.1')
        y = norm(conv(x, f'{key}.block.0').relu(), f'{key}.block.2')
        return norm(conv(y, f'{key}.block.3').relu(), f'{key}.block.5') + shortcut

    maps = [block(x, 'first')]
    for i in range(3):
        maps.append(block(F.max_pool2d(maps[-1], 2), f'down_path.{i}'))
    x = maps.pop()
    for i in range(3):
        key = f'up_path.{i}'
        up = F.conv_transpose2d(x, state[f'{prefix}.{key}.up_layer.weight'],
                                state[f'{prefix}.{key}.up_layer.bias'], stride=2)
        bridge = norm(conv(maps.pop(), f'{key}.conv_bridge_layer.0').relu(),
                      f'{key}.conv_bridge_layer.2')
        x = block(torch.cat([up, bridge], 1), f'{key}.conv_layer')
    return x


@torch.no_grad()
def test_it_is_two_unets_in_a_row(cfg):
    model = MODELS.build(cfg).double().eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.2, 0.5) if value.ndim == 1 else value.normal_(0, 0.2)
    state = model.backbone.state_dict()
    x = torch.rand(2, 3, 96, 104).double()
    first = F.conv2d(unet(state, 'unet1', x), state['final1.weight'], state['final1.bias'])
    head = model.decode_head.conv_seg
    expected = F.conv2d(unet(state, 'unet2', torch.cat([x, first], 1)), head.weight, head.bias)
    torch.testing.assert_close(model.encode_decode(x, [dict(img_shape=(96, 104))] * 2), expected)
    torch.testing.assert_close(model.backbone(x)[1], first)


def test_parameters_of_the_released_model(cfg):
    """Four classes: the released file's 279,464, of which the classifier has 36."""
    net = WNet(num_classes=4)
    assert sum(p.numel() for p in net.parameters()) == 279_464 - 36


def test_both_scores_learn(cfg):
    model = MODELS.build(cfg)
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(3, (1, 64, 64))),
        metainfo=dict(img_shape=(64, 64)))
    losses = model.loss(torch.rand(2, 3, 64, 64), [sample, sample])
    assert {'decode.loss_ce', 'aux.loss_ce'} <= losses.keys()
    losses['aux.loss_ce'].backward(retain_graph=True)
    assert model.backbone.final1.weight.grad.abs().sum() > 0
    assert model.backbone.unet2.first.block[0].weight.grad is None
    losses['decode.loss_ce'].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r'multiples of 8, got \[60, 64\]'):
        WNet(num_classes=3)(torch.zeros(1, 3, 60, 64))
