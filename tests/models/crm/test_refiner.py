"""CRM against slow references: the implicit function, tiles, the schedule, the losses."""
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.models.crm.head import ImplicitPointHead
from mmsparse.models.crm.losses import SobelLoss
from mmsparse.models.crm.refiner import all_pixels, reflect
from mmsparse.models.crm.sampling import Window, resize_aligned, source_window, whole
from mmsparse.models.crm.tiling import HALO, cores, plan_tiles
from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap
from mmsparse.sparse.bilinear import cells_around_pixels
from tests.examples import examples
from tests.models.crm.builders import build, picture, shake

LIGHT = dict(type='mmsparse.CRMMobileNetV2')


# ---- counts and shapes ------------------------------------------------------------------------

def test_counts():
    model = build(thin=False)
    parts = model.backbone, model.neck, model.head, model
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [
        8_546_432, 742_912, 11_617, 9_300_961]


@pytest.mark.parametrize('size', [(96, 128), (97, 131)])
def test_shapes(size):
    model = build(thin=False)
    stages = model.backbone(torch.zeros(1, 4, *size))
    assert [tuple(x.shape[1:]) for x in stages] == [
        (c, -(-size[0] // s), -(-size[1] // s)) for c, s in (
            (64, 2), (256, 4), (512, 8), (1024, 8))]
    assert model.neck(stages).shape == (1, 256, -(-size[0] // 2), -(-size[1] // 2))
    assert model.stage_sizes(size) == [tuple(x.shape[2:]) for x in stages]


@pytest.mark.parametrize(('level', 'stride'), [(0, 4), (1, 8), (2, 8)])
def test_fusing_without_the_stem(level, stride):
    model = build(neck=dict(fuse='2-3-4', out_level=level, in_channels=(16, 32, 64)))
    stages = model.backbone(torch.zeros(1, 4, 100, 130))
    assert model.neck(stages).shape[2:] == (-(-100 // stride), -(-130 // stride))
    image, mask = picture((100, 130))
    assert model.refine(image, mask).mask.shape == (1, 100, 130)


def test_the_encoder_is_mmsegs_and_takes_three_channel_weights(tmp_path):
    from mmseg.models.backbones import ResNet
    init_default_scope('mmseg')
    stock = shake(ResNet(18, num_stages=3, strides=(1, 2, 1), dilations=(1, 1, 2),
                         out_indices=(0, 1, 2), contract_dilation=True))
    stock.eval()
    torch.save(stock.state_dict(), tmp_path / 'imagenet.pth')
    ours = MODELS.build(dict(type='mmsparse.CRMResNet', depth=18))
    nn.init.constant_(ours.conv1.weight, 7)
    load_checkpoint(ours, str(tmp_path / 'imagenet.pth'), strict=True)
    ours.eval()
    image = torch.randn(2, 3, 97, 99)
    for mask in (torch.ones(2, 1, 97, 99), torch.randn(2, 1, 97, 99)):
        stem, *stages = ours(torch.cat([image, mask], 1))
        for a, b in zip(stages, stock(image), strict=True):
            torch.testing.assert_close(a, b)
    assert not ours.conv1.weight[:, 3].any() and (stem >= 0).all()


def test_a_light_encoder(tmp_path):
    """mmseg's MobileNetV2 without what is not used; three-channel weights load."""
    from mmseg.models.backbones import MobileNetV2
    init_default_scope('mmseg')
    stock = shake(MobileNetV2(strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 1, 1),
                              out_indices=(0, 1, 2, 4)))
    stock.eval()
    torch.save(stock.state_dict(), tmp_path / 'imagenet.pth')
    ours = MODELS.build(LIGHT)
    load_checkpoint(ours, str(tmp_path / 'imagenet.pth'), strict=False)
    ours.eval()
    image = torch.randn(1, 3, 97, 99)
    found = ours(torch.cat([image, torch.randn(1, 1, 97, 99)], 1))
    for a, b in zip(found, stock(image), strict=True):
        torch.testing.assert_close(a, b)
    assert [tuple(x.shape[1:]) for x in found] == [
        (c, -(-97 // s), -(-99 // s)) for c, s in zip(
            (16, 24, 32, 96), ours.stage_strides, strict=True)]
    model = build(backbone=LIGHT, neck=dict(in_channels=(16, 24, 96)))
    model.train()
    image, mask = picture((64, 80), count=2)
    losses = model(model.normalize(image), samples(mask, mask), mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


# ---- the implicit function --------------------------------------------------------------------

def by_sampling(head, features, target):
    """Every step as the paper words it: four nearest samples of features and coordinates."""
    b, c, height, width = features.shape
    t, u = target
    def grid(n, m):
        y = (2 * torch.arange(n).double() + 1) / n - 1
        x = (2 * torch.arange(m).double() + 1) / m - 1
        return torch.stack(torch.meshgrid(y, x, indexing='ij'))
    points, cells = grid(t, u), grid(height, width).expand(b, -1, -1, -1)
    values, areas = [], []
    for dy in (-1, 1):
        for dx in (-1, 1):
            at = points + torch.tensor([dy / height + 1e-6, dx / width + 1e-6])[:, None, None]
            at = at.clamp(-1 + 1e-6, 1 - 1e-6).flip(0).permute(1, 2, 0).expand(b, t, u, 2)
            feature, cell = (F.grid_sample(x.double(), at, mode='nearest', align_corners=False)
                             for x in (features, cells))
            offset = (points - cell) * torch.tensor([height, width])[:, None, None]
            size = torch.tensor([2 * height / t, 2 * width / u])[:, None, None]
            row = torch.cat([feature, offset, points.expand(b, 2, t, u),
                             size.expand(b, 2, t, u)], 1).permute(0, 2, 3, 1)
            for layer in head.layers[:-1]:
                row = (row @ layer.weight.double().T + layer.bias.double()).relu()
            values.append((row @ head.layers[-1].weight.double().T
                           + head.layers[-1].bias.double()).permute(0, 3, 1, 2))
            areas.append((offset[:, 0] * offset[:, 1]).abs()[:, None] + 1e-9)
    total = sum(areas)
    return sum(v * a / total for v, a in zip(values, areas[::-1], strict=True))


PAIRS = [((12, 15), (24, 30)), ((11, 13), (22, 26)), ((7, 9), (56, 72)), ((13, 17), (97, 101)),
         ((9, 12), (9, 12)), ((31, 22), (15, 40)), ((48, 40), (6, 5))]


@pytest.mark.parametrize(('cells', 'target'), PAIRS)
def test_the_head_is_the_papers_function(cells, target):
    torch.manual_seed(0)
    head = shake(ImplicitPointHead(in_channels=20)).double()
    features = torch.randn(2, 20, *cells, dtype=torch.float64, requires_grad=True)
    expected = by_sampling(head, features, target)
    queries = all_pixels(2, whole(target), features.device)
    found = head(head.project(features), queries, head.axes(target, cells)).view_as(expected)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert expected.std() > 0.1
    # gradients of features and of every weight, the split first layer included
    cotangent = torch.randn_like(expected)
    inputs = [features, *head.parameters()]
    ours = torch.autograd.grad(found, inputs, cotangent)
    theirs = torch.autograd.grad(expected, inputs, cotangent)
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 2e-3


def test_weights_are_bilinear_inside_and_sum_to_one():
    """A head that answers with the feature itself interpolates."""
    head = ImplicitPointHead(in_channels=1, hidden=(1,))
    for layer, weight in zip(head.layers, ([1.0] + [0] * 6, [1.0]), strict=True):
        layer.weight.data[:] = torch.tensor(weight)
        layer.bias.data.zero_()
    x = torch.rand(1, 1, 9, 11)
    queries = all_pixels(1, whole((50, 64)), x.device)
    axes = head.axes((50, 64), (9, 11))
    found = head(head.project(x), queries, axes).view(1, 1, 50, 64)
    expected = F.interpolate(x, (50, 64), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])
    ones = head(head.project(torch.ones_like(x)), queries, axes)
    torch.testing.assert_close(ones, torch.ones_like(ones))


# ---- tiles ------------------------------------------------------------------------------------

sides = st.integers(1, 40)


@examples(60)
@given(sides, sides, st.booleans())
def test_cells_around_positions_are_those_of_interpolation(size, pixels, align_corners):
    cells, offset = cells_around_pixels(range(pixels), pixels, size, align_corners=align_corners)
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    expected = F.interpolate(x[None, None], pixels, mode='linear', align_corners=align_corners)
    first, second = x[cells].unbind(1)
    torch.testing.assert_close(torch.lerp(first, second, offset[:, 0]), expected[0, 0])
    torch.testing.assert_close(cells + offset, (cells + offset).flip(1))
    assert offset.abs().max() <= 1


@examples(60)
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.data())
def test_a_window_of_a_resized_map(source, size, data):
    top, left = (data.draw(st.integers(0, n - 1)) for n in size)
    window = Window(top, left, data.draw(st.integers(top + 1, size[0])),
                    data.draw(st.integers(left + 1, size[1])))
    x = torch.randn(2, 3, *source, generator=torch.Generator().manual_seed(sum(source)))
    expected = window.of(F.interpolate(x, size, mode='bilinear', align_corners=True))
    used = source_window(window, size, source)
    for part, x_window in ((x, whole(source)), (used.of(x), used)):
        found = resize_aligned(part, size, window, source_size=source, x_window=x_window)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_window_crops_sparse_pixels_too():
    """Every window of the package is (top, left, bottom, right)."""
    mask = torch.rand(2, 20, 31, generator=torch.Generator().manual_seed(0)) < 0.5
    for window in (Window(3, 11, 9, 30), Window(5, 2, 20, 4), whole((20, 31))):
        part, rows = SparseMap.from_mask(torch.randn(2, 1, 20, 31), mask).crop(*window)
        assert torch.equal(part.topology.mask, window.of(mask))
        assert len(rows) == window.of(mask).sum()


@examples(40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_cores_cover_what_is_active_once(rows, columns, side, seed):
    active = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.2
    count = torch.zeros(rows, columns)
    for core in cores(active, side):
        core.of(count)[:] += 1
        assert max(core.size) <= side
    assert count.max() <= 1 and (count[active] == 1).all()


@pytest.mark.parametrize('size', [(450, 533), (400, 640)])
@pytest.mark.parametrize('full', [(250, 333), (777, 901)])
def test_every_pixel_is_answered_by_one_tile(size, full):
    cells = tuple(-(-n // 2) for n in size)
    _, need = plan_tiles(size, full, cells, 2, None, 1, math.inf)
    for bound in (math.inf, 1.5 * need, need):
        tiles, _ = plan_tiles(size, full, cells, 2, None, 1, bound)
        count = torch.zeros(full)
        for tile in tiles:
            tile.pixels.of(count)[:] += 1
            assert tile.window.top % 8 == tile.window.left % 8 == 0
        assert (count == 1).all()
    assert len(tiles) > 1
    assert plan_tiles(size, full, cells, 2, None, 1, need - 1) == (None, need)


@pytest.mark.parametrize(('backbone', 'neck'), [
    (None, {}), (None, dict(fuse='2-3-4', out_level=1, in_channels=(16, 32, 64))),
    pytest.param(LIGHT, dict(in_channels=(16, 24, 96)), marks=pytest.mark.slow)])
@torch.no_grad()
def test_tiles_equal_the_whole(backbone, neck, monkeypatch):
    """Features of a tile, halo and all, are those of the whole image."""
    model = build(neck=neck, backbone=backbone)
    image, mask = picture((430, 518))
    size = (403, 451)
    level = model._level()
    stride, cells = model.backbone.stage_strides[level], model.stage_sizes(size)[level]
    (single,), need = plan_tiles(size, (430, 518), cells, stride, None, 1, math.inf)
    tiles, _ = plan_tiles(size, (430, 518), cells, stride, None, 1, 1.2 * need)
    assert len(tiles) > 3
    expected = model.encode(image, mask, size, single)
    spread = expected.std()
    for tile in tiles:
        assert tile.window.size != size
        found = model.encode(image, mask, size, tile)
        part = expected[:, tile.cells.top:tile.cells.bottom, tile.cells.left:tile.cells.right]
        assert float((found - part).abs().max() / spread) < 1e-4
    monkeypatch.setattr('mmsparse.models.crm.tiling.HALO', 64)
    assert HALO == 160
    tiles, _ = plan_tiles(size, (430, 518), cells, stride, None, 1, need / 2)
    worst = 0
    for tile in tiles:
        found = model.encode(image, mask, size, tile)
        part = expected[:, tile.cells.top:tile.cells.bottom, tile.cells.left:tile.cells.right]
        worst = max(worst, float((found - part).abs().max() / spread))
    assert worst > 1e-3, 'a halo too small must show'


@pytest.mark.parametrize('test_cfg', [
    dict(query_chunk=777), dict(max_bytes=150 * 2**20),
    dict(selector=dict(type='mmsparse.EntropySelector', alpha=0.0), select_from=0.0)])
def test_chunks_tiles_and_a_full_selection_change_nothing(test_cfg):
    image, mask = picture((230, 250))
    expected = build().refine(image, mask).mask
    model = build(**test_cfg)
    if 'max_bytes' in test_cfg:
        assert len(model.tiles(reflect(image, 32), reflect(mask, 32), (294, 314))) > 1
    found = model.refine(image, mask)
    assert found.queried == [1.0] * 4
    assert expected.std() > 0.02
    torch.testing.assert_close(found.mask, expected, atol=1e-3, rtol=0)


@pytest.mark.usefixtures('computes_bfloat16')
def test_half_precision_keeps_coordinates():
    """Only features and layers are rounded: the result moves by their rounding, not by cells."""
    image, mask = picture((64, 80))
    a, b = build().refine(image, mask).mask, build(amp=True).refine(image, mask).mask
    assert b.dtype == torch.float32
    assert 0 < float((a - b).abs().mean()) < 0.02


# ---- the schedule -----------------------------------------------------------------------------

@torch.no_grad()
def by_hand(model, image, mask):
    """The schedule with whole maps and torch's own padding and resizing."""
    x = model.normalize(image)
    x = F.pad(x, (32,) * 4, mode='reflect')
    p = F.pad(mask[:, None], (32,) * 4, mode='reflect')
    full = tuple(p.shape[2:])
    for scale in (0.125, 0.25, 0.5, 1.0):
        size = tuple(round(n * scale) for n in full)
        small, m = (F.interpolate(a, size, mode='bilinear', align_corners=True) for a in (x, p))
        features = model.neck(model.backbone(torch.cat([small, 2 * m - 1], 1)))
        p = by_sampling(model.head, features, full).sigmoid().float()
    return p[:, 0, 32:-32, 32:-32]


def test_the_schedule():
    model = build()
    image, mask = picture((131, 178))
    found = model.refine(image, mask)
    expected = by_hand(model, image, mask)
    assert expected.std() > 0.02
    torch.testing.assert_close(found.mask, expected, atol=1e-3, rtol=0)
    changed = ((expected > 0.5) != (mask > 0.5)).float().mean()
    assert float(found.changed) == pytest.approx(float(changed), abs=1e-3)
    torch.testing.assert_close(
        model.refine(model.normalize(image), mask).mask, found.mask, atol=1e-3, rtol=0)


@pytest.mark.parametrize('normalized', [False, True])
def test_mask_and_image_stay_together_at_every_scale(normalized):
    """Both are smoothed or not, shifted or not, alike: their edge is one to a tenth of a pixel."""
    model, seen = build(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for edge in (72, 133, 190):
        image, mask = torch.full((1, 3, 60, 265), 20, dtype=torch.uint8), torch.zeros(1, 60, 265)
        image[..., edge:], mask[..., edge:] = 220, 1
        if normalized:
            image = model.normalize(image)
        for scale in (0.125, 0.25, 0.5, 1.0):
            size = tuple(round(n * scale) for n in (60, 265))
            tile, = model.tiles(image, mask, size)
            with torch.no_grad():
                model.encode(image, mask, size, tile)
            rows = seen.pop()[0, :, 0].double()  # three colors and the mask
            share = (rows - rows[:, :1]) / (rows[:, -1:] - rows[:, :1])
            edges = share.shape[1] - share.sum(1)
            assert float((edges - edges[3]).abs().max()) < 0.1
            assert abs(float(edges[3]) - scale * edge) < 1  # aligned corners


def test_a_batch_is_its_images():
    model = build()
    image, mask = picture((96, 130), count=3)
    together = model.refine(image, mask)
    for i in range(3):
        alone = model.refine(image[i:i + 1], mask[i:i + 1])
        torch.testing.assert_close(together.mask[i:i + 1], alone.mask, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.changed[i:i + 1], alone.changed)


def test_an_empty_mask_stays_empty():
    image, mask = picture((96, 96), count=2)
    mask[0] = 0
    found = build().refine(image, mask).mask
    assert not found[0].any() and found[1].any()
    assert build().refine(image, torch.ones_like(mask)).mask.isfinite().all()


def test_only_selected_pixels_change():
    image, mask = picture((160, 200))
    last = dict(scales=(1.0,))
    model = build(**last, selector=dict(type='mmsparse.BoundarySelector', alpha=0.3, radius=0.02))
    found, dense = model.refine(image, mask), build(**last).refine(image, mask)
    near = torch.zeros(160, 200, dtype=torch.bool)
    edge = torch.zeros_like(near)
    edge[:, 1:] |= mask[0, :, 1:] != mask[0, :, :-1]
    edge[:, :-1] |= mask[0, :, 1:] != mask[0, :, :-1]
    edge[1:] |= mask[0, 1:] != mask[0, :-1]
    edge[:-1] |= mask[0, 1:] != mask[0, :-1]
    radius = round(0.02 * (160 + 200 + 4 * 32))
    for y, x in edge.nonzero().tolist():
        near[max(y - radius, 0):y + radius + 1, max(x - radius, 0):x + radius + 1] = True
    torch.testing.assert_close(found.mask[0][near], dense.mask[0][near], atol=1e-5, rtol=1e-4)
    assert torch.equal(found.mask[0][~near], mask[0][~near])
    assert 0 < found.queried[0] < 1


def test_gates():
    image, mask = picture((120, 140))
    free = build().refine(image, mask)
    assert float(free.changed) > 0
    kept = build(accept_iou=1.0).refine(image, mask)
    assert torch.equal(kept.mask, mask) and not kept.changed.any()
    assert torch.equal(build(accept_iou=0.0).refine(image, mask).mask, free.mask)
    area = int(mask.sum())
    assert torch.equal(build(min_area=area + 1).refine(image, mask).mask, mask)
    assert torch.equal(build(min_area=area).refine(image, mask).mask, free.mask)
    band = build(edit_band=0.02).refine(image, mask).mask
    differs = (band != mask)[0]
    ys, xs = (mask[0] > 0.5).nonzero().unbind(1)
    r = round(0.02 * 260)
    outer = torch.zeros_like(differs)
    outer[max(ys.min() - r - 1, 0):ys.max() + r + 2,
          max(xs.min() - r - 1, 0):xs.max() + r + 2] = True
    inner = torch.zeros_like(differs)
    inner[ys.min() + r + 1:ys.max() - r, xs.min() + r + 1:xs.max() - r] = True
    assert differs.any() and not (differs & (~outer | inner)).any()


def test_small_masks_cost_nothing():
    image, mask = picture((120, 140))
    speck = torch.zeros_like(mask)
    speck[0, 50:53, 60:64] = 0.7
    model = build(min_area=13)
    alone = model.refine(image, mask)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = model.refine(torch.cat([image] * 3), torch.cat([speck, mask, speck]))
    assert set(seen) == {1}
    assert torch.equal(found.mask[::2], torch.cat([speck] * 2))
    torch.testing.assert_close(found.mask[1], alone.mask[0])
    assert found.changed.tolist() == pytest.approx([0, float(alone.changed), 0], abs=1e-3)
    assert found.queried == pytest.approx(alone.queried, abs=1e-3)
    seen.clear()
    found = model.refine(image, speck)
    assert torch.equal(found.mask, speck) and not found.changed.any()
    assert not seen and found.queried == []


def test_small_inputs_skip_scales():
    image, mask = picture((96, 130))
    found = build(min_long_side=224).refine(image, mask)
    assert len(found.queried) == 1
    torch.testing.assert_close(
        found.mask, build(scales=(1.0,)).refine(image, mask).mask)


@pytest.mark.parametrize('shape', [(5, 40), (33, 50), (32, 33)])
def test_reflection(shape):
    x = torch.randn(2, 3, *shape)
    found = reflect(x, 32)
    rows = reflect(x[..., :1], 32)[..., 32:33]
    if shape[0] > 32:
        assert torch.equal(rows, F.pad(x[..., :1], (0, 0, 32, 32), mode='reflect'))
    else:
        assert torch.equal(rows, F.pad(x[..., :1], (0, 0, 32, 32), mode='replicate'))
    assert found.shape[2:] == (shape[0] + 64, shape[1] + 64)
    assert torch.equal(found[..., 32:-32, 32:-32], x)


@pytest.mark.parametrize(('test_cfg', 'message'), [
    (dict(scale=1), "no keys \\['scale'\\]"), (dict(scales=(1, 0.5)), 'ascending, got'),
    (dict(query_chunk=0), 'query_chunk must be at least 1'),
    (dict(max_bytes=0), 'max_bytes must be at least 1'), (dict(pad=-1), 'pad must not be neg'),
    (dict(accept_iou=2), 'accept_iou must be in'),
    (dict(edit_band=-0.1), 'edit_band must be in')])
def test_bad_settings(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(**test_cfg)


def test_bad_inputs():
    image, mask = picture((96, 96))
    with pytest.raises(ValueError, match='must agree in number and size'):
        build().refine(image, mask[:, 1:])
    with pytest.raises(ValueError, match='from 0 to 1, got 0 to 255'):
        build().refine(image, mask * 255)
    with pytest.raises(ValueError, match=r"loss_weights has the keys .*got \['BCE'\]"):
        MODELS.build(dict(type='mmsparse.CRMRefiner', backbone=LIGHT, loss_weights=dict(BCE=1),
                          neck=dict(type='mmsparse.CRMFusionNeck', in_channels=(16, 24, 96)),
                          head=dict(type='mmsparse.ImplicitPointHead')))
    with pytest.raises(ValueError, match='CRMFusionNeck.fuse must be one of'):
        build(neck=dict(fuse='1-2'))


@pytest.mark.parametrize('full_chunk', [2**13, 2**19])  # of a CPU, of a GPU
@pytest.mark.parametrize('settings', [{}, dict(query_chunk=2**14)])
def test_the_least_memory_is_told_and_is_enough(settings, full_chunk, monkeypatch):
    monkeypatch.setattr('mmsparse.models.crm.refiner.CRMRefiner._full_chunk', lambda _: full_chunk)
    image, mask = picture((96, 96))
    with pytest.raises(ValueError, match='max_bytes is 1000000, but 1 image.* need at least') as e:
        build(max_bytes=10**6, **settings).refine(image, mask)
    enough = int(str(e.value).split()[-1])
    assert build(max_bytes=enough, **settings).refine(image, mask).mask.shape == (1, 96, 96)
    with pytest.raises(ValueError, match=f'max_bytes is {enough - 10**5}'):
        build(max_bytes=enough - 10**5, **settings).refine(image, mask)


# ---- losses, training -------------------------------------------------------------------------

def edges_by_loops(mask):
    n, m = mask.shape
    def at(a, y, x):
        return a[y, x] if 0 <= y < n and 0 <= x < m else 0.0
    smooth, edge = torch.zeros(n, m), torch.zeros(n, m)
    for y in range(n):
        for x in range(m):
            smooth[y, x] = sum(at(mask, y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    for y in range(n):
        for x in range(m):
            gx = sum(w * (at(smooth, y + i, x + 1) - at(smooth, y + i, x - 1))
                     for i, w in ((-1, 1), (0, 2), (1, 1))) / 4
            gy = sum(w * (at(smooth, y + 1, x + i) - at(smooth, y - 1, x + i))
                     for i, w in ((-1, 1), (0, 2), (1, 1))) / 4
            edge[y, x] = math.sqrt(gx**2 + gy**2 + 1e-4)
    return edge


def test_the_edge_loss():
    a, b = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = (edges_by_loops(a) - edges_by_loops(b)).abs().mean()
    found = SobelLoss(loss_weight=3.0)(a[None, None], b[None, None])
    assert float(found) == pytest.approx(3 * float(expected), rel=1e-5)


def samples(gt, coarse):
    out = []
    for g, c in zip(gt, coarse, strict=True):
        sample = SegDataSample(metainfo=dict(ori_shape=tuple(g.shape), img_shape=tuple(g.shape)))
        sample.gt_mask, sample.coarse_mask = PixelData(data=g[None]), PixelData(data=c[None])
        out.append(sample)
    return out


def test_losses_by_hand():
    """A network that answers logit 1 everywhere; the target is soft but for the cross entropy."""
    model = build()
    nn.init.zeros_(model.head.layers[-1].weight)
    nn.init.ones_(model.head.layers[-1].bias)
    gt = torch.tensor([[0.0, 0.4], [0.6, 1.0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    losses = model(torch.zeros(1, 3, 32, 32), samples(gt[None], gt[None]), mode='loss')
    p = 1 / (1 + math.exp(-1))
    assert float(losses['loss_bce']) == pytest.approx(
        -(math.log(p) + math.log(1 - p)) / 2, rel=1e-5)
    values = (0.0, 0.4, 0.6, 1.0)
    assert float(losses['loss_l1']) == pytest.approx(
        0.5 * sum(abs(p - v) for v in values) / 4, rel=1e-5)
    assert float(losses['loss_l2']) == pytest.approx(
        0.5 * sum((p - v)**2 for v in values) / 4, rel=1e-5)
    edge = (edges_by_loops(torch.full((32, 32), p)) - edges_by_loops(gt)).abs().mean()
    assert float(losses['loss_sobel']) == pytest.approx(2 * float(edge), rel=1e-4)


@torch.no_grad()
def test_one_pass_at_half_size():
    model = build()
    image, mask = picture((96, 130), count=2)
    x = model.normalize(image)
    small, m = (F.interpolate(a, (48, 65), mode='bilinear', align_corners=True)
                for a in (x, mask[:, None]))
    features = model.neck(model.backbone(torch.cat([small, 2 * m - 1], 1)))
    expected = by_sampling(model.head, features, (96, 130)).float()
    found = model.logits(x, mask[:, None], 0.5)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)
    assert not torch.allclose(found, model.logits(x, mask[:, None]), atol=0.1)


def test_training_draws_scales(monkeypatch):
    model, seen = build(), []
    model.train_scales = (0.25, 1.0)
    logits = model.logits
    monkeypatch.setattr(model, 'logits', lambda *args: seen.append(args[2]) or logits(*args))
    image, mask = picture((64, 80))
    torch.manual_seed(0)
    for _ in range(12):
        model(model.normalize(image), samples(mask, mask), mode='loss')
    assert set(seen) == {0.25, 1.0}


def test_every_parameter_is_trained():
    """Nothing is computed and thrown away; DDP would complain."""
    model = build()
    model.train()
    image, mask = picture((64, 80), count=2)
    losses = model(model.normalize(image), samples(mask, mask), mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_predict_through_the_preprocessor():
    model = build()
    image, mask = picture((96, 130), count=2)
    data = dict(inputs=list(image), data_samples=samples(mask, mask))
    found = model.test_step(data)
    for i, sample in enumerate(found):
        expected = model.refine(image[i:i + 1], mask[i:i + 1])
        torch.testing.assert_close(sample.refined_mask.data, expected.mask, atol=1e-3, rtol=0)
        assert sample.metainfo['changed'] == pytest.approx(
            float(expected.changed[0]), abs=1e-3)
        assert sample.metainfo['queried'] == expected.queried


def shapes(count, size, seed):
    """Discs and boxes on noise, and their masks shifted: crude coarse masks."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
    images, masks, coarse = [], [], []
    for i in range(count):
        cy, cx = torch.randint(size // 3, 2 * size // 3, (2,), generator=g).tolist()
        r = int(torch.randint(size // 6, size // 4, (1,), generator=g))
        inside = ((y - cy)**2 + (x - cx)**2 < r * r if i % 2 else
                  torch.maximum((y - cy).abs(), (x - cx).abs()) < r)
        color = torch.rand(2, 3, 1, 1, generator=g) * 255
        image = torch.where(inside, color[0], color[1])
        image = image + 20 * torch.randn(3, size, size, generator=g)
        images.append(image.clamp(0, 255).to(torch.uint8))
        masks.append(inside.float())
        shift = torch.randint(-6, 7, (2,), generator=g).tolist()
        coarse.append(inside.float().roll(shift, (0, 1)))
    return torch.stack(images), torch.stack(masks), torch.stack(coarse)


@pytest.mark.slow
def test_a_few_hundred_steps_learn_to_refine():
    torch.manual_seed(0)
    model = build(thin=True, scales=(0.5, 1.0))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(300):
        image, gt, coarse = shapes(8, 64, seed=step)
        losses = model(model.normalize(image), samples(gt, coarse), mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.eval()
    from mmsparse.evaluation.boundary_mba import boundary_accuracy
    image, gt, coarse = shapes(12, 96, seed=10**6)
    refined = model.refine(image, coarse).mask > 0.5

    def iou(mask):
        mask, target = mask > 0.5, gt > 0.5
        return float((mask & target).sum() / (mask | target).sum())

    def edges(mask):
        return sum(boundary_accuracy((m > 0.5).numpy(), (t > 0.5).numpy())
                   for m, t in zip(mask, gt, strict=True)) / len(gt)

    assert iou(refined) > iou(coarse) + 0.03
    assert edges(refined.float()) > edges(coarse) + 0.03


@pytest.mark.slow
def test_memory_is_bounded(root):
    """The real network at 768x1024 keeps to `max_bytes` and gives the untiled map."""
    limit = 512  # MiB
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', str(root / 'tests' / 'bounded_memory_worker.py'),
         str(limit)], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    peak, tiles, difference, alone = result.stdout.split()[-4:]
    assert int(tiles) > 1
    assert float(difference) < 5e-3  # rounding, fed back through a random network three times
    assert float(alone) < 1e-3
    assert float(peak) < limit
