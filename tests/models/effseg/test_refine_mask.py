"""RefineMask++: its size, the boundary band, the loss and the composed mask against loops."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmsparse.models.effseg import RefineMaskHead
from mmsparse.models.effseg.refine_mask import (
    RefineMaskStage,
    boundary_band,
    compose,
    stage_losses,
)
from mmsparse.registry import MODELS
from tests.examples import examples

GRIDS = (14, 28, 56, 112)


def small(**kwargs):
    head = MODELS.build(dict(type='mmsparse.RefineMaskHead', num_classes=3, in_channels=32,
                             **kwargs))
    head.init_weights()
    return head


def inputs(count=3, channels=32, images=2):
    """Feature maps of 160x192 pixels and boxes inside, across the border and narrow."""
    feats = [torch.randn(images, channels, 40 >> i, 48 >> i) for i in range(2)]
    boxes = torch.tensor([[20., 30, 120, 100], [-9, -9, 50, 60], [150, 10, 152, 150]])
    rois = torch.cat([torch.tensor([[1.], [0], [1]]), boxes], 1)[:count]
    return feats, torch.randn(count, channels, 14, 14), rois, torch.tensor([2, 0, 1])[:count]


# ---- size ----------------------------------------------------------------------------------------

def test_parameters_are_those_published():
    """6,580,590 with the fusion of the query: Linear 256 to 256, and 1x1 512 to 256 to 256."""
    query, fusion = 256 * 256 + 256, 512 * 256 + 256 + 256 * 256 + 256
    assert sum(p.numel() for p in RefineMaskHead().parameters()) == 6_580_590 - query - fusion


def test_multiplications_are_those_published():
    """281.2 G for 97 RoIs, of which 137.8 G on the stride-4 map (EffSeg, Table 4).

    That is a map of 55,700 cells, the one of 800x1110 pixels: its four convolutions and, for each
    stage, one 1x1. A sample of RoIAlign or of an upsampling counts 4.
    """
    head = RefineMaskHead()
    macs, samples = {}, []

    def count(name):
        def hook(module, _, out):
            macs[name] = module.weight.numel() * out[0, 0].numel()
        return hook

    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count(name))
    for stage in head.stages:
        stage.roi_align.register_forward_hook(lambda *args: samples.append(args[2][0].numel()))
        stage.register_forward_hook(lambda *args: samples.append(args[2][0].numel()))
    with torch.no_grad():
        head([torch.zeros(1, 256, 10, 10)], torch.zeros(1, 256, 14, 14),
             torch.tensor([[0., 0, 0, 30, 30]]), torch.tensor([0]))
    of_image = {name for name in macs if 'semantic' in name}
    assert len(of_image) == 4 + 3 and len(macs) == 4 + 3 + 2 + 3 * 6 + 4
    per_cell = sum(macs[name] for name in of_image) / 100
    assert 137.8e9 / per_cell == pytest.approx(200 * 277.5, rel=0.005)
    fusion = 14 * 14 * (512 + 256) * 256 + 256 * 256
    roi_features = 256 * 14 * 14
    per_roi = sum(macs.values()) - 100 * per_cell + fusion + 4 * (sum(samples) + roi_features)
    assert 137.8 + 97 * per_roi / 1e9 == pytest.approx(281.2, abs=0.05)


def test_shapes():
    head = small()
    stages = head(*inputs())
    assert [tuple(x.shape) for x in stages] == [(3, 1, g, g) for g in GRIDS]
    assert head.compose(stages).shape == (3, 1, 112, 112)
    assert all(abs(x.mean()) < 0.2 for x in stages)  # a new head knows nothing


def test_each_class_has_its_masks_and_all_the_last_one():
    head = small()
    feats, roi_feats, rois, _ = inputs(1)
    stages = [head(feats, roi_feats, rois, torch.tensor([label])) for label in range(3)]
    first = head.logits[0](head.instance_convs(roi_feats))
    for label in range(3):
        torch.testing.assert_close(stages[label][0], first[:, label:label + 1])
    assert head.logits[3].out_channels == 1 and head.logits[2].out_channels == 3


def test_rois_do_not_see_each_other_and_read_their_image():
    head = small().eval()
    feats, roi_feats, rois, labels = inputs()
    together = head(feats, roi_feats, rois, labels)
    order = torch.tensor([2, 0, 1])
    for a, b in zip(together, head(feats, roi_feats[order], rois[order], labels[order]),
                    strict=True):
        torch.testing.assert_close(a[order], b, atol=1e-5, rtol=1e-4)
    changed = [f.clone() for f in feats]
    changed[0][0] += 1  # the image of the second RoI
    for a, b in zip(together[1:], head(changed, roi_feats, rois, labels)[1:], strict=True):
        torch.testing.assert_close(a[[0, 2]], b[[0, 2]], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(a[1], b[1])


# ---- the boundary --------------------------------------------------------------------------------

def loop_band(mask, width):
    size = len(mask)

    def value(y, x):
        return 0 <= y < size and 0 <= x < size and bool(mask[y, x])

    return np.array([[any(value(j, i) != value(y, x)
                          for j in range(y - width, y + width + 1)
                          for i in range(x - width, x + width + 1))
                      for x in range(size)] for y in range(size)])


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 3),
       st.sampled_from([0, 0.05, 0.5, 0.95, 1]))
@examples(100)
def test_the_band_against_a_loop(seed, size, width, density):
    masks = np.random.default_rng(seed).random((2, size, size)) < density
    found = boundary_band(torch.from_numpy(masks)[:, None], width)
    assert found.dtype == torch.bool
    for mask, band in zip(masks, found, strict=True):
        assert np.array_equal(band[0].numpy(), loop_band(mask, width))


def loop_upsample(coarse):
    """Bilinear at the centers of the children, edges repeated."""
    size = len(coarse)
    fine = np.zeros((2 * size, 2 * size))
    for y in range(2 * size):
        for x in range(2 * size):
            v, u = (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5
            for j in (math.floor(v), math.floor(v) + 1):
                for i in (math.floor(u), math.floor(u) + 1):
                    cell = coarse[min(max(j, 0), size - 1), min(max(i, 0), size - 1)]
                    fine[y, x] += (1 - abs(v - j)) * (1 - abs(u - i)) * cell
    return fine


def loop_refine(coarse, fine):
    band = loop_band(coarse > 0, 1)
    result = loop_upsample(coarse)
    for y in range(len(fine)):
        for x in range(len(fine)):
            if band[y // 2, x // 2]:
                result[y, x] = fine[y, x]
    return result


def blobs(count, size, seed=0):
    """Smooth logits, float64, positive in a few places."""
    coarse = np.random.default_rng(seed).normal(size=(count, 1, 4, 4))
    return nn.functional.interpolate(torch.from_numpy(coarse), (size, size), mode='bicubic',
                                     align_corners=False)


def test_compose_against_a_loop():
    stages = [blobs(3, g, seed=g) for g in (4, 8, 16, 32)]
    kept = [x.clone() for x in stages]
    found = compose(stages)
    for i in range(3):
        expected = stages[1][i, 0].numpy()
        for fine in stages[2:]:
            expected = loop_refine(expected, fine[i, 0].numpy())
        np.testing.assert_allclose(found[i, 0].numpy(), expected, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(stages, kept, strict=True))
    stages[0] += 1  # the first is not used
    assert torch.equal(compose(stages), found)


def test_only_the_boundary_is_refined():
    """A square of 10 cells: inside it and far from it the finer stages have no say."""
    coarse = torch.full((1, 1, 28, 28), -5.)
    coarse[..., 9:19, 9:19] = 5
    fine = [torch.full((1, 1, g, g), 7.) for g in (56, 112)]
    found = compose([coarse[..., ::2, ::2], coarse, *fine])
    assert (found[..., 44:68, 44:68] == 5).all() and (found[..., :28, :28] == -5).all()
    assert (found[..., 30:39, 30:39] == 7).all()


# ---- a stage -------------------------------------------------------------------------------------

def loop_conv(conv, x, dilation=1):
    """Convolution of ``[C, g, g]``, tap by tap; beyond the grid is 0."""
    weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
    size, reach = x.shape[1:], weight.shape[2] // 2
    out = np.zeros((len(weight), *size)) + bias[:, None, None]
    for y in range(size[0]):
        for x0 in range(size[1]):
            for j in range(-reach, reach + 1):
                for i in range(-reach, reach + 1):
                    v, u = y + dilation * j, x0 + dilation * i
                    if 0 <= v < size[0] and 0 <= u < size[1]:
                        out[:, y, x0] += weight[:, :, j + reach, i + reach] @ x[:, v, u]
    return out


def loop_centers(maps, box, size, stride):
    """Bilinear values of ``[C, H, W]`` at the centers of a box's cells, all inside the map."""
    out = np.zeros((len(maps), size, size))
    for y in range(size):
        for x in range(size):
            v = (box[1] + (y + 0.5) / size * (box[3] - box[1])) / stride - 0.5
            u = (box[0] + (x + 0.5) / size * (box[2] - box[0])) / stride - 0.5
            for j in (math.floor(v), math.floor(v) + 1):
                for i in (math.floor(u), math.floor(u) + 1):
                    out[:, y, x] += maps[:, j, i] * (1 - abs(v - j)) * (1 - abs(u - i))
    return out


def test_a_stage_against_loops():
    stage = RefineMaskStage(in_channels=3, channels=6, grid=7, stride=4)
    for p in stage.parameters():
        nn.init.normal_(p, std=0.4)
    features, logits = torch.randn(2, 6, 7, 7), torch.randn(2, 1, 7, 7)
    semantic = torch.randn(2, 3, 16, 20)
    rois = torch.tensor([[1, 10, 9, 50.5, 43], [0, 21, 12.25, 40, 33]])
    found = stage(features, logits, semantic, rois)
    assert found.shape == (2, 3, 14, 14)

    def relu(x):
        return np.maximum(x, 0)

    for i, (image, *box) in enumerate(rois.tolist()):
        maps = relu(loop_conv(stage.semantic, semantic[int(image)].double().numpy()))
        mask = 1 / (1 + np.exp(-logits[i].double().numpy()))
        x = np.concatenate([features[i].double().numpy(), loop_centers(maps, box, 7, 4), mask])
        x = relu(loop_conv(stage.mix, x))
        total = np.stack([x[c].mean() for c in range(6)])[:, None, None]
        for conv, dilation in zip(stage.branches, (1, 3, 5), strict=True):
            total = total + relu(loop_conv(conv, x, dilation))
        x = relu(loop_conv(stage.reduce, relu(loop_conv(stage.merge, total))))
        expected = [loop_upsample(channel) for channel in (*x, mask[0])]
        assert (x > 0).any() and (x == 0).any()
        np.testing.assert_allclose(found[i].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


# ---- the loss ------------------------------------------------------------------------------------

def loop_losses(stage_logits, target):
    """Means over the cells of one RoI that count, and which do."""
    losses, where, running, coarser = [], [], None, None
    for stage, logits in enumerate(stage_logits):
        size, step = len(logits), len(target) // len(logits)
        wanted = np.array([[target[y:y + step, x:x + step].mean() >= 0.5
                            for x in range(0, len(target), step)]
                           for y in range(0, len(target), step)])
        if stage < 2:
            cells, running = np.ones((size, size), bool), logits
        else:
            band = loop_band(coarser, 2) | loop_band(running > 0, 2)
            cells = np.array([[band[y // 2, x // 2] for x in range(size)] for y in range(size)])
            running = loop_refine(running, logits)
        p = 1 / (1 + np.exp(-logits))
        losses.append((-np.log(np.where(wanted, p, 1 - p)) * cells).sum())
        where.append(cells)
        coarser = wanted
    return losses, where


def test_loss_and_gradient_against_a_loop():
    sizes = (8, 16, 32, 64)
    stages = [blobs(3, g, seed=g).requires_grad_() for g in sizes]
    targets = (blobs(3, 128, seed=9)[:, 0] > 0.3).float()
    targets = nn.functional.avg_pool2d(targets, 2)  # coverage
    assert ((targets > 0) & (targets < 1)).any()
    losses = stage_losses(stages, targets)
    parts = [loop_losses([x[i, 0].detach().numpy() for x in stages], targets[i].numpy())
             for i in range(3)]
    for stage, loss in enumerate(losses):
        cells = np.stack([where[stage] for _, where in parts])
        expected = sum(total[stage] for total, _ in parts) / cells.sum()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        grads = torch.autograd.grad(loss, stages, allow_unused=True, retain_graph=True)
        assert all(g is None or not g.any() for i, g in enumerate(grads) if i != stage)
        assert np.array_equal((grads[stage][:, 0] != 0).numpy(), cells)
        assert stage < 2 or not cells.all()


def test_the_loss_weighs_the_stages():
    head = small(loss_weights=(1, 2, 3, 4))
    stages = head(*inputs())
    targets = torch.rand(3, 112, 112) > 0.5
    losses = head.loss(stages, targets)
    assert list(losses) == [f'loss_mask_{g}' for g in GRIDS]
    for i, (a, b) in enumerate(zip(losses.values(), stage_losses(stages, targets), strict=True)):
        assert a.item() == pytest.approx((i + 1) * b.item())


def test_a_step_reaches_every_parameter():
    head = small()
    losses = head.loss(head(*inputs()), torch.rand(3, 112, 112) > 0.5)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_empty_and_full_targets_are_finite():
    head = small()
    for value in (0., 1.):
        losses = head.loss(head(*inputs()), torch.full((3, 112, 112), value))
        assert all(math.isfinite(x) and x > 0 for x in losses.values())


def test_no_roi():
    head = small()
    stages = head(*inputs(0))
    assert [tuple(x.shape) for x in stages] == [(0, 1, g, g) for g in GRIDS]
    assert head.compose(stages).shape == (0, 1, 112, 112)
    losses = head.loss(stages, torch.rand(0, 112, 112))
    assert [x.item() for x in losses.values()] == [0] * 4
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_masks_are_learned():
    """Two discs that the stride-4 map shows: a few steps, and all four losses fall."""
    torch.manual_seed(0)
    head = small()
    y, x = torch.meshgrid(torch.arange(128.), torch.arange(128.), indexing='ij')
    discs = torch.stack([(y - 60)**2 + (x - 66)**2 < 40**2, (y - 70)**2 + (x - 50)**2 < 30**2])
    feats = [torch.randn(2, 32, 32, 32) * 0.1]
    feats[0][:, :8] += nn.functional.avg_pool2d(discs[:, None].float(), 4)
    rois = torch.tensor([[0., 8, 8, 120, 120], [1, 8, 8, 120, 120]])
    targets = discs[:, 8:120, 8:120]
    roi_feats = nn.functional.adaptive_avg_pool2d(
        targets[:, None].float(), 14).expand(2, 32, 14, 14) + torch.randn(2, 32, 14, 14) * 0.1
    labels = torch.tensor([0, 2])
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        losses = head.loss(head(feats, roi_feats, rois, labels), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append([loss.item() for loss in losses.values()])
    assert (np.array(history[-1]) < 0.5 * np.array(history[0])).all()
    masks = head.compose(head(feats, roi_feats, rois, labels))[:, 0] > 0
    assert (masks & targets).sum() / (masks | targets).sum() > 0.97


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(loss_weights=(1, 1)), r'loss_weights must be 4 numbers, got \(1, 1\)'),
    (dict(in_channels=100), 'in_channels must be a multiple of 8 from 16 on, got 100'),
    (dict(in_channels=8), 'got 8')])
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RefineMaskHead(**arguments)


@pytest.mark.gpu
def test_mixed_precision_on_the_gpu():
    head = small().cuda()
    feats, *rest = inputs()
    feats, rest = [f.cuda() for f in feats], [x.cuda() for x in rest]
    with torch.autocast('cuda', torch.bfloat16):
        stages = head(feats, *rest)
        losses = head.loss(stages, torch.rand(3, 112, 112, device='cuda') > 0.5)
    assert all(x.dtype == torch.float32 for x in losses.values())
    sum(losses.values()).backward()
    for a, b in zip(stages, head(feats, *rest), strict=True):
        torch.testing.assert_close(a.float(), b, atol=0.1, rtol=0.1)
