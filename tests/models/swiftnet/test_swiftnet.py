"""SwiftNet: taps, decoders, pyramid and loss against slow references and the paper's counts."""
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from mmseg.models.backbones import MobileNetV2, ResNet
from torch import nn

from mmsparse.models.swiftnet import (
    BoundaryAwareLoss,
    PyramidFusionNeck,
    SwiftNetHead,
    SwiftNetNeck,
    SwiftNetPyramidBackbone,
    SwiftNetResNet,
)
from mmsparse.models.swiftnet.necks import grid_pool, pool_matrix

RESNET18 = dict(type='mmsparse.SwiftNetResNet', depth=18)
TAPS = (64, 128, 256, 512)
SIZES = [(90, 121), (65, 97), (33, 47)]


def randomize(model):
    """Batch norms that do something."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for value in (norm.weight, norm.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (norm.bias, norm.running_mean):
                nn.init.normal_(value, std=0.2)
    return model


def evaluating(model):
    """``eval()`` of mmseg's backbones returns nothing."""
    model.eval()
    return model


# ---- encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize(('depth', 'with_cp'), [(18, False), (18, True), (50, False), (50, True)])
def test_taps_before_the_relu_are_those_of_the_stock_resnet(depth, with_cp):
    torch.manual_seed(0)
    ours = randomize(SwiftNetResNet(depth, with_cp=with_cp)).double()
    stock = ResNet(depth).double()
    stock.load_state_dict(ours.state_dict())
    ours.train(), stock.train()
    x = torch.randn(2, 3, 90, 121, dtype=torch.float64, requires_grad=True)
    taps = ours(x)
    expected = copy.deepcopy(stock)(x)
    assert all(tap.min() < 0 for tap in taps)
    for tap, out in zip(taps, expected, strict=True):
        torch.testing.assert_close(F.relu(tap), out, rtol=1e-9, atol=1e-12)
    sum(F.relu(tap).square().sum() for tap in taps).backward()
    grad, x.grad = x.grad, None
    sum(out.square().sum() for out in stock(x)).backward()
    reference = x.grad
    assert (grad - reference).norm() < 1e-9 * reference.norm()


def test_taps_after_the_relu():
    x = torch.randn(1, 3, 65, 97)
    net = evaluating(SwiftNetResNet(18, tap='post'))
    assert all(tap.min() >= 0 for tap in net(x))


def test_part_of_the_pretraining(tmp_path):
    torch.manual_seed(0)
    stock = randomize(ResNet(18))
    torch.save(stock.state_dict(), tmp_path / 'r18.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'r18.pth'))
    net = SwiftNetResNet(18, pretrained_parts=['stem', 'rb1'], init_cfg=init_cfg)
    net.init_weights()
    state = stock.state_dict()
    for name, value in net.state_dict().items():
        if value.ndim:  # not the counter of batches
            kept = name.startswith(('conv1', 'bn1', 'layer1'))
            assert torch.equal(value, state[name]) == kept, name
    assert net.layer4[1].bn1.weight.eq(1).all() and net.layer4[1].bn1.running_mean.eq(0).all()


@pytest.mark.parametrize(('options', 'message'), [
    (dict(tap='middle'), r"tap must be one of \('pre', 'post'\), got 'middle'"),
    (dict(pretrained_parts=['rb5']), r"may name .*, got \['rb5'\]"),
    (dict(plugins=[dict()]), 'does not support plugins')])
def test_resnet_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SwiftNetResNet(18, **options)


# ---- single scale ---------------------------------------------------------------------------


@pytest.mark.parametrize(('size', 'grid'), [((32, 64), (8, 16)), ((23, 30), (8, 10)),
                                            ((23, 30), (2, 3)), ((5, 3), (8, 5))])
def test_grid_pooling_by_matrices_is_adaptive_pooling(monkeypatch, size, grid):
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    expected = F.adaptive_avg_pool2d(x, grid)
    assert torch.equal(grid_pool(x, *grid), expected)
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    torch.testing.assert_close(grid_pool(x, *grid), expected)
    rows = pool_matrix(size[0], grid[0], x)
    torch.testing.assert_close(rows.sum(1), torch.ones(grid[0], dtype=torch.float64))


@pytest.mark.parametrize(('size', 'columns'), [((32, 64), [16, 8, 4]), ((24, 24), [8, 4, 2]),
                                               ((23, 30), [10, 5, 3]), ((2, 40), [160, 80, 40]),
                                               ((16, 20), [10, 5, 2])])
def test_grids_follow_the_shape_of_the_map(monkeypatch, size, columns):
    """Columns are ``round(rows * w / h)``, ties to even: 2.5 becomes 2."""
    neck, seen = SwiftNetNeck(in_channels=TAPS), []
    monkeypatch.setattr('mmsparse.models.swiftnet.necks.grid_pool',
                        lambda x, r, c: seen.append((r, c)) or F.adaptive_avg_pool2d(x, (r, c)))
    neck.eval()(tuple(torch.randn(1, c, size[0] * s, size[1] * s)
                      for c, s in zip(TAPS, (8, 4, 2, 1), strict=True)))
    assert seen == list(zip((8, 4, 2), columns, strict=True))


def slow_spp(spp, x):
    """The published listing, step by step in float64."""
    def brc(block, x):
        n = block.norm
        x = (x - n.running_mean[:, None, None]) / (n.running_var + n.eps).sqrt()[:, None, None]
        x = (x * n.weight[:, None, None] + n.bias[:, None, None]).clamp(min=0)
        return torch.einsum('bchw,dc->bdhw', x, block.conv.weight[:, :, 0, 0])

    p = brc(spp.project, x)
    h, w = x.shape[2:]
    maps = [p]
    for rows, level in zip((8, 4, 2), spp.levels, strict=True):
        columns = max(1, round(rows * w / h))
        cells = torch.stack([torch.stack([
            p[:, :, i * h // rows:-(-(i + 1) * h // rows),
              j * w // columns:-(-(j + 1) * w // columns)].mean((2, 3))
            for j in range(columns)], -1) for i in range(rows)], -2)
        maps.append(F.interpolate(brc(level, cells), size=(h, w), mode='bilinear'))
    return brc(spp.fuse, torch.cat(maps, 1))


@pytest.mark.parametrize('size', [(23, 30), (8, 16), (9, 7)])
@torch.no_grad()
def test_spatial_pyramid_pooling_equals_the_listing(size):
    torch.manual_seed(0)
    spp = randomize(SwiftNetNeck(in_channels=TAPS)).spp.eval().double()
    x = torch.randn(2, 512, *size, dtype=torch.float64)
    torch.testing.assert_close(spp(x), slow_spp(spp, x))
    assert {n.momentum for n in spp.modules() if isinstance(n, nn.BatchNorm2d)} == {0.005}


@torch.no_grad()
def test_an_upsampling_module_equals_the_plain_formula():
    torch.manual_seed(0)
    module = randomize(SwiftNetNeck(in_channels=TAPS)).upsample[0].eval()
    x, tap = torch.randn(2, 128, 5, 7), torch.randn(2, 256, 9, 13)
    kept = tap.clone()
    t = module.bottleneck.conv(F.relu(module.bottleneck.norm(tap)))
    y = F.interpolate(x, size=(9, 13), mode='bilinear', align_corners=False) + t
    torch.testing.assert_close(module(x, tap), module.blend.conv(F.relu(module.blend.norm(y))))
    assert torch.equal(tap, kept), 'the in-place ReLU spares the tap'


@pytest.mark.parametrize('options', [dict(up_block=b) for b in (
    'conv3', 'conv1', 'group8', 'dwsep', 'invres')] + [
        dict(up_mode='nearest'), dict(use_spp=False)])
@torch.no_grad()
def test_every_variant_of_the_decoder_runs(options):
    neck = SwiftNetNeck(in_channels=TAPS, **options).eval()
    maps = neck(evaluating(SwiftNetResNet(18))(torch.randn(1, 3, 65, 97)))
    assert [tuple(m.shape) for m in maps] == [
        (1, 128, 3, 4), (1, 128, 5, 7), (1, 128, 9, 13), (1, 128, 17, 25)]


@pytest.mark.parametrize(('options', 'message'), [
    (dict(up_block='conv5'), r"up_block must be one of .*, got 'conv5'"),
    (dict(up_mode='cubic'), r"up_mode must be one of .*, got 'cubic'"),
    (dict(in_channels=(1, 2)), r'four taps, got \(1, 2\)')])
def test_the_neck_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SwiftNetNeck(**dict(in_channels=TAPS) | options)


# ---- pyramid --------------------------------------------------------------------------------


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('levels', [0, 2, 3])
@torch.no_grad()
def test_any_size_gives_a_map_of_a_quarter_rounded_up(size, levels):
    if levels:
        backbone = SwiftNetPyramidBackbone(encoder=RESNET18, levels=levels)
        neck = PyramidFusionNeck(in_channels=TAPS, levels=levels)
    else:
        backbone, neck = SwiftNetResNet(18), SwiftNetNeck(in_channels=TAPS)
    head = SwiftNetHead(in_channels=128, channels=128, num_classes=19)
    out = head.eval()(neck.eval()(evaluating(backbone)(torch.randn(1, 3, *size))))
    assert tuple(out.shape) == (1, 19, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize('levels', [2, 3])
def test_nodes_add_the_taps_of_their_stride(levels):
    """One tap at a time: it reaches node ``level + stage`` alone."""
    neck = PyramidFusionNeck(in_channels=(1, 1, 1, 1), levels=levels, channels=1)
    for bottleneck in neck.bottlenecks:
        nn.init.ones_(bottleneck.weight)
    shapes = [(1, 1, 2 ** (6 - level - stage), 2 ** (6 - level - stage))
              for level in range(levels) for stage in range(4)]
    for hot in range(4 * levels):
        taps = [torch.full(s, float(i == hot)) for i, s in enumerate(shapes)]
        found = [float(node.mean()) for node in neck.nodes(taps)]
        assert found == [float(j == sum(divmod(hot, 4))) for j in range(levels + 3)]
    with pytest.raises(ValueError, match=f'needs {4 * levels} taps, got 3'):
        neck.nodes(taps[:3])


@torch.no_grad()
def test_levels_are_the_encoder_on_smaller_images_with_their_own_norms():
    torch.manual_seed(0)
    net = randomize(SwiftNetPyramidBackbone(encoder=RESNET18, levels=3)).eval()
    x = torch.randn(1, 3, 90, 121)
    taps = net(x)
    for level, size in enumerate([(90, 121), (45, 61), (23, 31)]):
        own = SwiftNetResNet(18)
        state = net.encoder.state_dict()
        if level:
            norms = {k.replace('/', '.'): v
                     for k, v in net.level_norms[level - 1].state_dict().items()}
            assert len(norms) == 17 * 5 and not any('downsample' in k for k in norms)
            state = state | norms
        own.load_state_dict(state)
        image = F.interpolate(x, size=size, mode='bicubic') if level else x
        for found, expected in zip(taps[4 * level:], evaluating(own)(image), strict=False):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(('height', 'width', 'levels'), [(90, 122, 2), (124, 252, 3)])
def test_levels_rounded_up_and_down_are_the_same_where_nothing_is_rounded(height, width, levels):
    up, down = (SwiftNetPyramidBackbone(encoder=RESNET18, levels=levels, rounding=rounding)
                for rounding in ('ceil', 'floor'))
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    for number in range(levels):
        torch.testing.assert_close(down.level(x, number), up.level(x, number))


def test_levels_rounded_down_have_pixels_a_whole_step_apart():
    """A ramp stays a ramp: its pixels lie at 4 i + 1.5, whatever the width."""
    net = SwiftNetPyramidBackbone(encoder=RESNET18, levels=3, rounding='floor')
    ramp = torch.arange(126, dtype=torch.float64).expand(1, 3, 126, 126)
    found = net.level(ramp, 2)
    assert found.shape == (1, 3, 31, 31) and net.level(ramp, 1).shape == (1, 3, 63, 63)
    torch.testing.assert_close(found[0, 0, 0, 1:-1], 4 * torch.arange(1, 30).double() + 1.5)
    with pytest.raises(ValueError, match='image of 90 x 121: those of level 1 are too small. Pad '
                       "it to multiples of 4, or set rounding='ceil'"):
        net(torch.zeros(1, 3, 90, 121))


@pytest.mark.parametrize('encoder', [RESNET18, dict(type='MobileNetV2')])
def test_checkpoints_with_one_set_of_norms_serve_every_level(encoder):
    torch.manual_seed(0)
    source = randomize(SwiftNetPyramidBackbone(encoder=encoder, levels=2, per_level_norm=False))
    net = SwiftNetPyramidBackbone(encoder=encoder, levels=3)
    net.load_state_dict(source.state_dict())
    names = [name for name in net.state_dict() if name.startswith('level_norms')]
    assert names
    for name in names:
        stem = name.split('.', 2)[2].replace('/', '.')
        assert torch.equal(net.state_dict()[name], source.state_dict()[f'encoder.{stem}'])
    randomize(net)
    again = SwiftNetPyramidBackbone(encoder=encoder, levels=3)
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(1, 3, 65, 97)
    for a, b in zip(net.eval()(x), again.eval()(x), strict=True):
        assert torch.equal(a, b)


def test_pretrained_encoders_start_every_level(tmp_path):
    stock = randomize(ResNet(18))
    torch.save(stock.state_dict(), tmp_path / 'r18.pth')
    net = SwiftNetPyramidBackbone(encoder=RESNET18 | dict(init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'r18.pth'))), levels=2)
    net.init_weights()
    assert torch.equal(net.encoder.bn1.running_mean, stock.bn1.running_mean)
    assert torch.equal(net.level_norms[0]['bn1'].running_mean, stock.bn1.running_mean)


def test_a_level_learns_with_its_own_norms_and_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = randomize(SwiftNetPyramidBackbone(encoder=RESNET18, levels=2)).double().train()
    checked = SwiftNetPyramidBackbone(encoder=RESNET18 | dict(with_cp=True), levels=2).double()
    checked.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 65, 97, dtype=torch.float64, requires_grad=True)
    for net in (plain, checked.train()):
        sum(tap.square().mean() for tap in net(x)[4:]).backward()  # the coarser level alone
    grads = dict(plain.named_parameters())
    for name, parameter in checked.named_parameters():
        if grads[name].grad is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, grads[name].grad, rtol=1e-7, atol=1e-9)
    assert plain.encoder.bn1.weight.grad is None
    assert plain.level_norms[0]['bn1'].weight.grad.abs().sum() > 0
    assert plain.encoder.conv1.weight.grad.abs().sum() > 0


def test_the_pyramid_can_be_copied_and_cast():
    net = randomize(SwiftNetPyramidBackbone(encoder=RESNET18, levels=2)).eval()
    x = torch.randn(1, 3, 33, 47)
    other = copy.deepcopy(net)
    nn.init.zeros_(other.level_norms[0]['bn1'].weight)
    assert not torch.equal(other(x)[4], net(x)[4]), 'the copy computes with its own layers'
    assert torch.equal(other(x)[0], net(x)[0])
    assert net.double()(x.double())[7].dtype == torch.float64


def test_the_pyramid_refuses():
    for options in (dict(levels=4), dict(subsample='area'), dict(rounding='up')):
        with pytest.raises(ValueError, match='got (4|.area.|.up.)'):
            SwiftNetPyramidBackbone(encoder=RESNET18, **options)
    with pytest.raises(ValueError, match="bottleneck must be one of .* got 'conv5'"):
        PyramidFusionNeck(in_channels=TAPS, bottleneck='conv5')


# ---- loss -----------------------------------------------------------------------------------


def logits_of_probability(p):
    return torch.tensor([p, 1 - p]).log().view(1, 2, 1, 1)


def test_loss_of_one_pixel_by_hand():
    label, eight = torch.zeros(1, 1, 1, dtype=torch.long), torch.full((1, 1, 1), 8.)
    loss = BoundaryAwareLoss()(logits_of_probability(0.5), label, eight)
    assert float(loss) == pytest.approx(8 * np.exp(0.25) * np.log(2)) == pytest.approx(7.1201, 1e-4)


def test_without_modulation_it_is_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 9, 11), torch.randint(5, (2, 9, 11))
    labels[0, :3] = 255
    kept = labels.clone()
    found = BoundaryAwareLoss(gamma=0)(logits, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, ignore_index=255))
    ratio = BoundaryAwareLoss()(logits, labels) / found
    assert 1 < ratio < np.exp(0.5) and torch.equal(labels, kept)


def test_no_gradient_flows_through_the_modulation():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    labels, weight = torch.randint(3, (1, 4, 5)), torch.rand(1, 4, 5)
    weight[0, 0, :2] = 0
    BoundaryAwareLoss()(logits, labels, weight).backward()
    z = logits.detach().requires_grad_()
    log_p = z.float().log_softmax(1).gather(1, labels[:, None])[:, 0]
    factor = torch.exp(0.5 * (1 - log_p.detach().exp()))
    (-(weight * factor * log_p).sum() / 18).backward()
    torch.testing.assert_close(logits.grad, z.grad)


def test_nothing_labeled_is_zero():
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    loss = BoundaryAwareLoss()(logits, torch.full((1, 4, 5), 255))
    loss.backward()
    assert loss == 0 and logits.grad.eq(0).all()


def test_the_mobilenet_gives_the_four_taps():
    with torch.device('meta'):
        net = revert_sync_batchnorm(MobileNetV2(out_indices=(1, 2, 4, 6)))
        taps = net(torch.empty(1, 3, 65, 97))
    assert [t.shape[1] for t in taps] == [24, 32, 96, 320]
    assert sum(p.numel() for p in net.parameters()) == 1_811_712
