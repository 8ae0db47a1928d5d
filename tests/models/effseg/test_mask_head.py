"""EffSeg's mask head: counts of the paper, a dense reference, budgets, losses."""
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmsparse.models.effseg import EffSegMaskHead
from mmsparse.models.effseg.mask_head import compose, sine_code
from mmsparse.models.effseg.rois import (
    RoIMasks,
    cell_centers,
    pyramid_rows,
    roi_levels,
    safe_rois,
    sample_pyramid,
)
from mmsparse.sparse.sps import square

MODULES = {
    'mmsparse.SPSMLP': 195_328, 'mmsparse.SPSConvBlock': 367_360,
    'mmsparse.SPSDeformConvBlock': 371_446, 'mmsparse.SemanticFusionModule': 646_464}


def count(*modules) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def inputs(rois=5, images=2, channels=16, query=8, size=(64, 96), dtype=torch.float32, seed=0):
    """Pyramid, RoI features, RoIs of all levels, image by image, queries."""
    torch.manual_seed(seed)
    feats = [torch.randn(images, channels, size[0] // 2**i, size[1] // 2**i, dtype=dtype)
             for i in range(4)]
    corner = torch.rand(rois, 2) * torch.tensor([200.0, 100.0])
    side = 20 * 2 ** (5 * torch.rand(rois, 2))
    image = torch.arange(rois) * images // max(rois, 1)
    boxes = torch.cat([image[:, None].float(), corner, corner + side], 1)
    return (feats, torch.randn(rois, channels, 14, 14, dtype=dtype), boxes,
            torch.randn(rois, query, dtype=dtype))


def small(**kwargs) -> EffSegMaskHead:
    torch.manual_seed(1)
    return EffSegMaskHead(**{**dict(in_channels=16, query_channels=8, num_convs=2), **kwargs})


# ---- counts -------------------------------------------------------------------------------------

def test_parameters_are_the_papers():
    head = EffSegMaskHead()
    stages = head.stages
    assert count(head) == 4_208_872
    assert count(head.fusion.project) == 65_792 and count(head.fusion.blend) == 197_120
    assert count(head.convs) == 2_360_320
    for branch in ('segmentation', 'refinement'):
        assert count(getattr(head, branch), *(getattr(s, branch) for s in stages)) == 88_004
    assert count(*(m for s in stages for m in (s.child_first, s.child_second))) == 432_320
    assert count(*(s.fuse for s in stages)) == 287_616
    assert count(*(s.transition for s in stages)) == 43_232
    assert count(*(s.processing for s in stages)) == 646_464


def test_every_stage_tells_its_cells_apart_from_the_start():
    """Logits that hardly differ would be all that the last stages learn from."""
    feats, roi_feats, rois, queries = inputs(channels=128)
    for settings, differ in (({}, True), (dict(init_cfg=None), False)):
        torch.manual_seed(0)
        head = EffSegMaskHead(
            in_channels=128, query_channels=8, budget=dict(per_roi=100), **settings)
        head.init_weights()
        outputs = head.run_stages(feats, roi_feats, rois, queries, training=True)
        for branch in ('segmentation', 'refinement'):
            spread = [getattr(output, branch).std().item() for output in outputs]
            assert (min(spread) > 0.02) == differ, spread


def test_deformable_convolutions_begin_as_plain_ones():
    head = small(processing=dict(type='mmsparse.SPSDeformConvBlock'))
    head.init_weights()
    for stage in head.stages:
        conv = stage.processing.first
        assert (conv.offset.bias == torch.tensor(square(3)).flatten()).all()
        assert (conv.offset.weight == 0).all() and (conv.linear.weight != 0).all()


@pytest.mark.parametrize('kind, parameters', MODULES.items())
def test_parameters_of_the_processing_modules(kind, parameters):
    head = EffSegMaskHead(processing=dict(type=kind))
    assert count(*(s.processing for s in head.stages)) == parameters
    assert count(head) == 4_208_872 - 646_464 + parameters


def test_parameters_of_the_dense_comparison():
    """38.896 M of Table 5's last row, less the detector's 34,601,022."""
    assert count(EffSegMaskHead(budget=None, reduce_features=True)) == 38_896_358 - 34_601_022


def macs(head, rois, budget=None):
    head.budget = budget
    feats, roi_feats, boxes, queries = inputs(rois, 1, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head.run_stages(feats, roi_feats, boxes, queries, training=False)
    return counter.get_total_flops() // 2


def test_multiply_accumulates():
    """Table 4's convention without RoIAlign and sampling, which the paper counts as 4 an output."""
    head = EffSegMaskHead().eval()
    dense = macs(head, 1, dict(per_image=0))
    roi_align = 4 * 14 * 14 * 256
    passive = sum(196 * w * (w // 2) for w in (256, 128, 64))  # each is projected in each stage
    assert round((dense - passive + roi_align) / 1e6) == 527
    cells = 196 * 256
    exact = (256 * 256 + 512 * cells + 256 * cells + 4 * 9 * 256 * cells + 2 * 256 * cells
             + 2 * cells + passive)
    assert dense == exact
    full = {kind: macs(EffSegMaskHead(processing=dict(type=kind)), 1, dict(per_image=50)) - dense
            for kind in ('mmsparse.SPSMLP', 'mmsparse.SemanticFusionModule')}
    gained = full['mmsparse.SemanticFusionModule'] - full['mmsparse.SPSMLP']
    assert gained == 200 * 21 * (128**2 + 64**2 + 32**2)
    assert round(gained / 200 * 40_000 / 1e9, 2) == 18.06


# ---- a dense reference --------------------------------------------------------------------------

def two(layers, x):
    return layers[2](F.relu(layers[0](x)))


def dense_sample(feats, strides, image, level, points):
    """By torch's own sampler, point by point."""
    rows = []
    for b, k, (x, y) in zip(image.tolist(), level.tolist(), points, strict=True):
        h, w = feats[k].shape[2:]
        at = torch.stack([x, y]).to(feats[k]) / strides[k]
        at = at / at.new_tensor([w, h]) * 2 - 1
        rows.append(F.grid_sample(feats[k][b:b + 1], at.view(1, 1, 1, 2),
                                  align_corners=False).flatten())
    return torch.stack(rows)


def dense_head(head, feats, roi_feats, rois, queries):
    """All layers on all cells, by dense convolutions; segmentation logits of all stages."""
    x = roi_feats + sine_code(roi_feats.shape[1], 14, 'cpu').to(roi_feats)
    query = F.relu(head.fusion.project(queries))[:, :, None, None].expand_as(x)
    x = x + head.fusion.blend(torch.cat([query, x], 1))
    x = head.convs(x).permute(0, 2, 3, 1)  # [R, H, W, C]
    said = [two(head.segmentation, x)[..., 0]]
    level = roi_levels(rois, 4, 56)
    for i, stage in enumerate(head.stages):
        r, h, w, width = x.shape
        children = stage.child_second(F.relu(stage.child_first(x)).view(r, h, w, 4, width))
        fine = x.new_zeros(r, 2 * h, 2 * w, width)
        for c in range(4):
            fine[:, c // 2::2, c % 2::2] = children[:, :, :, c] + x
        r_, y, x_ = torch.meshgrid(*(torch.arange(n) for n in (r, 2 * h, 2 * w)), indexing='ij')
        box = rois[r_.flatten(), 1:]
        place = torch.stack([x_.flatten() + 0.5, y.flatten() + 0.5], 1) / (2 * h)
        points = box[:, :2] + place * (box[:, 2:] - box[:, :2])
        seen = dense_sample(feats, head.strides, rois[r_.flatten(), 0].long(),
                            (level[r_.flatten()] - i - 1).clamp(min=0), points)
        fine = fine + two(stage.fuse, torch.cat([fine, seen.view(r, 2 * h, 2 * w, -1)], -1))
        fine = F.relu(stage.transition(fine))
        sfm = stage.processing
        inner = F.relu(sfm.first(fine)).permute(0, 3, 1, 2)
        total = sum(F.relu(F.conv2d(inner, conv.weight.permute(0, 3, 1, 2), conv.bias, padding=d,
                                    dilation=d)) for conv, d in zip(sfm.convs, (1, 3, 5),
                                                                    strict=True))
        x = sfm.last(total.permute(0, 2, 3, 1))
        said.append(two(stage.segmentation, x)[..., 0])
    return said


def test_with_budget_for_all_it_is_the_dense_head():
    head = small().double()
    feats, roi_feats, rois, queries = inputs(2, dtype=torch.double, size=(16, 24))
    leaves = [*feats, roi_feats, queries]
    for leaf in leaves:
        leaf.requires_grad_()
    head.budget = dict(per_image=2 * 56**2)
    mine = head.run_stages(feats, roi_feats, rois, queries, training=True)
    true = dense_head(head, feats, roi_feats, rois, queries)
    parameters = [p for n, p in head.named_parameters() if 'refinement' not in n]
    for stage, dense in zip(mine, true, strict=True):
        torch.testing.assert_close(dense[tuple(stage.cells.T)], stage.segmentation, atol=1e-6,
                                   rtol=1e-6)  # the sampling weights are float32
    grads = [torch.autograd.grad(sum((s * (i + 1)).sin().sum() for i, s in enumerate(values)),
                                 leaves + parameters, allow_unused=True)
             for values in ([s.segmentation for s in mine],
                            [d[tuple(s.cells.T)] for s, d in zip(mine, true, strict=True)])]
    for a, b in zip(*grads, strict=True):
        if b is not None:  # a level of the pyramid that no RoI reads
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(compose(mine, 2)[:, 0], true[-1].float(), atol=1e-5, rtol=1e-5)


def test_without_budget_the_coarse_mask_is_interpolated_three_times():
    head = small(budget=dict(per_image=0))
    feats, roi_feats, rois, queries = inputs()
    logits = head(feats, roi_feats, rois, queries)
    want = head.run_stages(feats, roi_feats, rois, queries, training=False)[0].segmentation.view(
        5, 1, 14, 14)
    for _ in range(3):
        want = F.interpolate(want, scale_factor=2, mode='bilinear')
    torch.testing.assert_close(logits, want.detach())
    once = F.interpolate(head.run_stages(feats, roi_feats, rois, queries, training=False)[
        0].segmentation.view(5, 1, 14, 14), scale_factor=8, mode='bilinear')
    assert not torch.allclose(logits, once, atol=1e-3), 'not the same as one step of eight'


# ---- boxes and pyramids -------------------------------------------------------------------------

def test_sampling_equals_torchs():
    feats, _, rois, _ = inputs(6, dtype=torch.double)
    cells = torch.cartesian_prod(torch.arange(6), torch.arange(5), torch.arange(5))
    points = cell_centers(rois, cells, 5) - 30  # some lie beyond the frame
    image, level = rois[cells[:, 0], 0].long(), cells[:, 1] % 4
    mine = sample_pyramid(pyramid_rows(feats, (4, 8, 16, 32)), image, level, points.double())
    true = dense_sample(feats, (4, 8, 16, 32), image, level, points)
    torch.testing.assert_close(mine, true, atol=1e-9, rtol=1e-9)


def test_a_linear_map_is_sampled_at_cell_centers():
    """The coordinate itself as a feature: no shift by half a cell, whatever the level."""
    feats = []
    for stride in (4, 8, 16, 32):
        axes = [(torch.arange(256 // stride) + 0.5) * stride for _ in range(2)]
        y, x = torch.meshgrid(*axes, indexing='ij')
        feats.append(torch.stack([x, y])[None])
    rois = torch.tensor([[0, 40.0, 50, 201, 180]])
    cells = torch.cartesian_prod(torch.zeros(1).long(), torch.arange(14), torch.arange(14))
    points = cell_centers(rois, cells, 14)
    torch.testing.assert_close(points[0], torch.tensor([40 + 161 / 28, 50 + 130 / 28]))
    for level in range(4):
        found = sample_pyramid(
            pyramid_rows(feats, (4, 8, 16, 32)), cells[:, 0], cells[:, 0] + level, points)
        torch.testing.assert_close(found, points)


def test_levels_and_odd_boxes():
    sides = torch.tensor([1, 56, 111, 112, 224, 448, 5000.0])
    rois = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], 1)
    assert roi_levels(rois, 4, 56).tolist() == [0, 0, 0, 1, 2, 3, 3]
    odd = torch.tensor([[0, 5.0, 5, 5, 4], [0, float('nan'), 0, 1, float('inf')]])
    safe = safe_rois(odd)
    assert safe.isfinite().all() and (safe[:, 3:] - safe[:, 1:3] >= 1).all()
    head = small()
    feats, roi_feats, _, queries = inputs(2, 1)
    assert head(feats, roi_feats, safe, queries).isfinite().all()


# ---- budgets ------------------------------------------------------------------------------------

def test_images_and_orders_do_not_matter():
    head = small(budget=dict(per_image=150)).eval()
    feats, roi_feats, rois, queries = inputs(6, 2)
    both = head(feats, roi_feats, rois, queries)
    for image in (0, 1):
        mine = rois[:, 0] == image
        alone = torch.cat([rois[mine, :1] * 0, rois[mine, 1:]], 1)
        single = head([f[image:image + 1] for f in feats], roi_feats[mine], alone, queries[mine])
        torch.testing.assert_close(both[mine], single, atol=1e-5, rtol=1e-4)
    order = torch.tensor([2, 0, 1, 4, 3, 5])  # within images
    turned = head(feats, roi_feats[order], rois[order], queries[order])
    torch.testing.assert_close(turned, both[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('budget, most', [
    (dict(per_image=150), 600), (dict(per_roi=30), 6 * 120), (dict(threshold=2.0), 0),
    (dict(threshold=0.0), 6 * 112**2), (None, 6 * 112**2)])
def test_scopes_of_the_budget(budget, most):
    head = small(budget=budget)
    feats, roi_feats, rois, queries = inputs(6, 1)
    with torch.no_grad():
        said = head.run_stages(feats, roi_feats, rois, queries, training=False)
    assert len(said[-1].cells) == most
    if budget == dict(per_roi=30):
        assert (torch.bincount(said[-1].cells[:, 0]) == 120).all()


@pytest.mark.parametrize('key, value', [
    ('budget', dict(per_batch=3)), ('budget', {}), ('budget', dict(per_roi=-1)),
    ('in_channels', 18), ('target', 'corner'), ('segmentation_weights', (1, 2)),
    ('refinement_weights', (1, 2, 3, -1))])
def test_bad_settings(key, value):
    with pytest.raises(ValueError, match=f'EffSegMaskHead.{key}'):
        small(**{key: value})


# ---- losses -------------------------------------------------------------------------------------

def truth(rois, images=2, size=(256, 384)):
    """Each RoI's object is a disc in its middle."""
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing='ij')
    masks = [[] for _ in range(images)]
    objects = []
    for image, *box in rois.tolist():
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        radius = min(box[2] - box[0], box[3] - box[1]) / 3
        disc = (x - middle[0])**2 + (y - middle[1])**2 < radius**2
        objects.append(len(masks[int(image)]))
        masks[int(image)].append(disc.float())
    return RoIMasks([torch.stack(m) if m else torch.zeros(0, *size) for m in masks], rois,
                    torch.tensor(objects, dtype=torch.long),
                    torch.zeros(len(rois), dtype=torch.long))


def test_coverage_by_loops():
    """Against the mean of the pixels under each cell, for boxes on pixels."""
    torch.manual_seed(0)
    masks = [(torch.rand(2, 60, 70) > 0.5).float(), (torch.rand(1, 60, 70) > 0.5).float()]
    rois = torch.tensor([[0, 7, 5, 35, 47], [0, 0, 0, 56, 28], [1, 14, 4, 42, 60.0]])
    found = RoIMasks(masks, rois, torch.tensor([1, 0, 0]), torch.zeros(3).long())
    grid = found.coverage(14)
    for r, (mask, box) in enumerate([(masks[0][1], rois[0]), (masks[0][0], rois[1]),
                                     (masks[1][0], rois[2])]):
        _, x1, y1, x2, y2 = box.int().tolist()
        full = mask[y1:y2, x1:x2].repeat_interleave(14, 0).repeat_interleave(14, 1)
        want = full.view(14, y2 - y1, 14, x2 - x1).mean((1, 3))
        # RoIAlign interpolates between pixels, so cells that end within one differ a little
        assert (grid[r] - want).abs().mean() < 0.12
        assert (grid[r] - want).abs().max() < 0.5
    points = torch.tensor([[7.5, 5.5], [35, 46.5], [-1, 3], [500, 3]])
    inside = found.at(torch.zeros(4).long(), points)
    assert inside.tolist() == [masks[0][1, 5, 7], masks[0][1, 46, 34:36].mean(), 0, 0]


@pytest.mark.parametrize('target', ['coverage', 'center'])
def test_losses_by_loops(target):
    head = small(target=target, budget=dict(per_image=100))
    feats, roi_feats, rois, queries = inputs(4)
    true = truth(rois)
    losses = head.loss(feats, roi_feats, queries, true)
    assert list(losses) == [f'loss_mask_{b}_{s}' for s in range(4) for b in ('seg', 'ref')]
    said = head.run_stages(feats, roi_feats, rois, queries, training=True)
    for s, (stage, weight) in enumerate(zip(said, (0.25, 0.375, 0.375, 0.5), strict=True)):
        covered = true.coverage(stage.size)
        seg, ref = [], []
        for i, (r, y, x) in enumerate(stage.cells.tolist()):
            c = float(covered[r, y, x])
            inside = c > 0.5
            if target == 'center':
                point = cell_centers(rois, stage.cells[i:i + 1], stage.size)
                inside = float(true.at(stage.cells[i:i + 1, 0], point)) > 0.5
            p = stage.segmentation[i].double().sigmoid()
            seg.append(-(p if inside else 1 - p).log())
            p = stage.refinement[i].double().sigmoid()
            ref.append(-(p if 1e-5 < c < 1 - 1e-5 else 1 - p).log())
        assert float(losses[f'loss_mask_seg_{s}']) == pytest.approx(
            weight * float(sum(seg)) / len(seg), rel=1e-4)
        assert float(losses[f'loss_mask_ref_{s}']) == pytest.approx(
            0.25 * float(sum(ref)) / len(ref), rel=1e-4)


def test_no_rois():
    head = small()
    feats, roi_feats, rois, queries = inputs(0)
    losses = head.loss(feats, roi_feats, queries.requires_grad_(), truth(rois))
    assert all(float(loss) == 0 for loss in losses.values()) and len(losses) == 8
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head(feats, roi_feats, rois, queries).shape == (0, 1, 112, 112)


def test_every_parameter_learns_whatever_the_budget():
    for budget in (dict(per_image=0), dict(per_image=100)):
        head = small(budget=budget)
        feats, roi_feats, rois, queries = inputs(3)
        sum(head.loss(feats, roi_feats, queries, truth(rois)).values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize('kind', list(MODULES))
def test_autocast(kind):
    head = small(processing=dict(type=kind), budget=dict(per_image=100))
    feats, roi_feats, rois, queries = inputs(3)
    plain = head.loss(feats, roi_feats, queries, truth(rois))
    with torch.autocast('cpu', torch.bfloat16):
        half = head.loss(feats, roi_feats, queries, truth(rois))
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(float(plain[name]), rel=0.1)
    sum(half.values()).backward()


def test_project_passive_changes_only_what_convolutions_see():
    feats, roi_feats, rois, queries = inputs(3)
    kind = 'mmsparse.SemanticFusionModule'
    found = [small(processing=dict(type=kind, project_passive=p), budget=dict(per_image=60))
             .run_stages(feats, roi_feats, rois, queries, training=False) for p in (False, True)]
    assert torch.equal(found[0][0].segmentation, found[1][0].segmentation)
    assert not torch.equal(found[0][1].segmentation, found[1][1].segmentation)


@pytest.mark.slow
def test_it_learns_fine_masks():
    """Four discs by heart: all losses fall, and the later stages sharpen the mask."""
    torch.manual_seed(0)
    head = EffSegMaskHead(in_channels=64, query_channels=8, num_convs=1,
                          budget=dict(per_image=400))
    rois = torch.tensor([[0, 20.0, 30, 120, 110], [0, 150, 40, 370, 230], [1, 10, 10, 90, 240],
                         [1, 100, 20, 370, 250]])
    true = truth(rois)
    feats = []
    for stride in (4, 8, 16, 32):
        seen = torch.stack([F.avg_pool2d(m.amax(0)[None], stride) for m in true.masks])
        feats.append(torch.randn(64, 1, 1) * (seen - 0.5) + 0.1 * torch.randn(64, *seen.shape[2:]))
    roi_feats = torch.randn(4, 64, 14, 14) * 0.1 + (true.coverage(14)[:, None] - 0.5)
    queries = torch.randn(4, 8)
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3)
    history = []
    for _ in range(150):
        losses = head.loss(feats, roi_feats, queries, true)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: float(loss) for name, loss in losses.items()})
    for name, first in history[0].items():
        assert history[-1][name] < 0.9 * first, name
    said = head.run_stages(feats, roi_feats, rois, queries, training=False)
    fine = true.coverage(112) > 0.5
    wrong = [float(((F.interpolate(compose(said[:n], 4), 112, mode='bilinear')[:, 0] > 0)
                    != fine).float().mean()) for n in (1, 2, 3, 4)]
    assert wrong[3] < wrong[0], wrong
