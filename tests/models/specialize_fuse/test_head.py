"""Specialize and Fuse: context, head and decoder against slow references and counts by hand."""
import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmseg.models.decode_heads import FCNHead
from mmseg.models.decode_heads.ann_head import APNB
from mmseg.models.segmentors import SegTTAModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmsparse.engine.complexity import dense_macs
from mmsparse.engine.fusion import fuse_for_inference
from mmsparse.models.specialize_fuse import (
    CoarseToFineContext,
    HRFusionDecoder,
    SpecializeFuseHead,
)
from mmsparse.models.specialize_fuse.cells import done_cells, grid_size, up
from mmsparse.models.specialize_fuse.context import LevelContext
from mmsparse.models.specialize_fuse.targets import majority_targets, pyramid_targets
from tests.models.specialize_fuse.builders import (
    BN,
    balance,
    features,
    image_batch,
    label_map,
    loop_relabel,
    metas,
    randomize,
    samples,
    segmentor,
)

STRIDES = (32, 16, 8, 4)
WIDTHS, RESNET = (48, 96, 192, 384), (256, 512, 1024, 2048)
POOLED, FINEST = dict(type='mmsparse.PooledLevels'), dict(type='mmsparse.FinestContext')
EVERY_LEVEL = dict(merge='none')  # attention on each level on its own
FINEST_LEVEL = dict(merge='none', attention_strides=(4,))
COARSER_TOKENS = dict(kv_source='coarser')


def single(weight):
    """No unity; coarse levels of this weight, if any, are auxiliary."""
    return dict(unity_head=None, targets=dict(relabel='naive'),
                loss_decode=dict(sem_weights=(weight, weight, weight, 1)))


def build_head(**kwargs):
    """Random weights, but of the cells of every level 40 % are unity."""
    torch.manual_seed(0)
    head = randomize(SpecializeFuseHead(**dict(
        in_channels=(4, 6), in_index=(0, 1), channels=16, num_classes=5) | kwargs)).eval()
    if len(head.in_index) == 2:
        balance(head, features())
    return head


# ---- context --------------------------------------------------------------------------------


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('size', [(24, 24), (9, 13), (1, 2)])
def test_level_context_is_mmsegs_block(size, training):
    ours = randomize(LevelContext(8, share=True, norm_cfg=BN)).double()
    stock = APNB(in_channels=8, channels=4, out_channels=8, query_scales=(1,),
                 key_pool_scales=(1, 3, 6, 8), conv_cfg=None, norm_cfg=BN,
                 act_cfg=dict(type='ReLU')).double()
    stock.load_state_dict({k.replace('attention', 'stages.0'): v
                           for k, v in ours.state_dict().items()})
    ours.train(training), stock.train(training)
    x = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    found, expected = ours(x), stock(x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for a, b in zip(torch.autograd.grad((found * weight).sum(), (x, *ours.parameters())),
                    torch.autograd.grad((expected * weight).sum(), (x, *stock.parameters())),
                    strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6)


def cbr(module, x):
    """Convolution of kernel 1, batch norm, ReLU on rows ``[n, c]``."""
    n = module.bn
    x = x @ module.conv.weight[:, :, 0, 0].T
    x = (x - n.running_mean) / (n.running_var + n.eps).sqrt() * n.weight + n.bias
    return x.clamp(min=0)


def linear(conv, x):
    return x @ conv.weight[:, :, 0, 0].T + conv.bias


def loop_pool(x, grids=(1, 3, 6, 8)):
    """Means over the cells of grids, ``[h, w, c]`` to rows."""
    h, w, _ = x.shape
    return torch.stack([
        x[i * h // g:-(-(i + 1) * h // g), j * w // g:-(-(j + 1) * w // g)].mean((0, 1))
        for g in grids for i in range(g) for j in range(g)])


def slow_context(context, maps, kv_source, merge, attention_strides, strides):
    """The formulas, cell by cell where levels meet, in float64: one image, ``[h, w, c]`` each."""
    refined = []
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        h, w, c = x.shape
        rows = x.reshape(-1, c)
        if level and merge != 'none':
            ratio = strides[level - 1] // stride
            above = torch.stack([refined[-1][i // ratio, j // ratio]
                                 for i in range(h) for j in range(w)])
            rows = cbr(context.merge[f's{stride}'],
                       torch.cat([rows, above], 1) if merge == 'concat' else rows + above)
        if stride in attention_strides:
            block = context.attend[f's{stride}']
            a = block.attention
            if kv_source == 'coarser' and level:
                source = refined[0].reshape(-1, c)
                keys, values = cbr(a.key_project, source), linear(a.value_project, source)
            else:
                keys = loop_pool(cbr(a.key_project, rows).view(h, w, -1))
                values = loop_pool(linear(a.value_project, rows).view(h, w, -1))
            scores = cbr(a.query_project, rows) @ keys.T / math.sqrt(c / 2)
            mixed = linear(a.out_project, scores.softmax(1) @ values)
            rows = cbr(block.bottleneck, torch.cat([mixed, rows], 1))
        refined.append(rows.view(h, w, -1))
    return refined


@pytest.mark.parametrize(('options', 'strides'), [
    (dict(), STRIDES), (dict(), (32, 4)), (dict(kv_source='coarser'), STRIDES),
    (dict(merge='add'), STRIDES), (dict(merge='none'), STRIDES),
    (dict(attention_strides=(32, 8)), STRIDES)])
@pytest.mark.parametrize('size', [(96, 96), (75, 133)])
@torch.no_grad()
def test_context_is_the_formula(options, strides, size):
    context = randomize(CoarseToFineContext(channels=8, strides=strides, **options)).double().eval()
    maps = [torch.randn(2, 8, *grid_size(size, s), dtype=torch.float64) for s in strides]
    found = context(maps)
    for b in range(2):
        expected = slow_context(context, [m[b].permute(1, 2, 0) for m in maps],
                                options.get('kv_source'), options.get('merge', 'concat'),
                                options.get('attention_strides', strides), strides)
        for a, e in zip(found, expected, strict=True):
            torch.testing.assert_close(a[b].permute(1, 2, 0), e)


def test_detaching_stops_the_gradient_between_levels():
    for detach in (False, True):
        for kv_source in ('same', 'coarser'):
            context = randomize(CoarseToFineContext(
                channels=8, strides=(8, 4), detach_coarse=detach, kv_source=kv_source))
            x = [torch.randn(1, 8, n, n, requires_grad=True) for n in (4, 8)]
            context(x)[1].sum().backward()
            assert (x[0].grad is None) == detach and x[1].grad.abs().sum() > 0


@torch.no_grad()
def test_bilinear_context_reads_the_neighbors():
    context = randomize(CoarseToFineContext(channels=8, strides=(8, 4), upsample='bilinear',
                                            attention_strides=())).eval()
    x, coarse = torch.randn(1, 8, 5, 7), torch.randn(1, 8, 3, 4)
    above = F.interpolate(coarse, size=(6, 8), mode='bilinear')[..., :5, :7]
    torch.testing.assert_close(context.refine(1, x, coarse),
                               context.merge['s4'](torch.cat([x, above], 1)))


def test_the_attention_starts_from_zero_whatever_the_initialization():
    head = SpecializeFuseHead(in_channels=4, in_index=0, channels=8, num_classes=3,
                              init_cfg=dict(type='Kaiming', layer='Conv2d'))
    head.init_weights()
    for block in head.context.attend.values():
        assert block.attention.out_project.weight.eq(0).all()
        assert block.attention.key_project.conv.weight.ne(0).any()
    deviations = [p.conv.weight.std() for p in (*head.sem.values(), *head.unity.values())]
    assert all(0.005 < s < 0.02 for s in deviations), 'classifiers as in mmseg'


# ---- head -----------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(96, 128), (75, 133), (31, 31), (500, 375)])
@torch.no_grad()
def test_levels_are_means_over_their_cells(size):
    head = build_head(in_channels=(4,), in_index=(0,), channels=None).double()
    x = torch.randn(1, 4, *grid_size(size, 4), dtype=torch.float64)
    found = head.level_features([x])
    assert [tuple(f.shape[2:]) for f in found] == [grid_size(size, s) for s in STRIDES]
    for f, k in zip(found, (8, 4, 2, 1), strict=True):
        for i, j in {(0, 0), (f.shape[2] - 1, f.shape[3] - 1), (f.shape[2] - 1, 0)}:
            torch.testing.assert_close(
                f[0, :, i, j], x[0, :, i * k:(i + 1) * k, j * k:(j + 1) * k].mean((1, 2)))


@torch.no_grad()
def test_a_without_projection_is_mmsegs_fcn_head():
    options = dict(in_channels=[4, 6], in_index=(0, 1), num_classes=5)
    ours = build_head(**options, channels=None, strides=(4,), context=POOLED,
                      fusion=dict(space='logit'))
    stock = FCNHead(kernel_size=1, num_convs=1, concat_input=False, dropout_ratio=0,
                    input_transform='resize_concat', norm_cfg=BN, channels=10, **options).eval()
    stock.load_state_dict({
        k.replace('sem.s4.hidden', 'convs.0').replace('sem.s4.conv', 'conv_seg'): v
        for k, v in ours.state_dict().items()})
    maps, labels = features(), label_map((96, 128), classes=5)
    torch.testing.assert_close(ours.predict(maps, metas((96, 128)), {}),
                               stock.predict(maps, metas((96, 128)), {}))
    stock.loss_decode.avg_non_ignore = True
    torch.testing.assert_close(ours.loss(maps, samples(labels), {})['loss_sem_s4'],
                               stock.loss(maps, samples(labels), {})['loss_ce'])


def slow_losses(head, sem, unity, labels):
    """Losses by loops: targets by the truth table, cross entropies cell by cell in float64."""
    classes, masks = loop_relabel(labels, head.strides, head.targets.relabel, unity)
    losses = {}
    for stride, logits, target in zip(head.strides[:-1], sem, classes, strict=False):
        total, count = 0., 0
        for b, i, j in (target != 255).nonzero().tolist():
            total = total - logits.double()[b, :, i, j].log_softmax(0)[target[b, i, j]]
            count += 1
        losses[f'loss_sem_s{stride}'] = total / max(count, 1)
    for stride, logits, mask in zip(head.strides, unity, masks, strict=False):
        total, count = 0., 0
        for b, i, j in (mask != 255).nonzero().tolist():
            z = logits.double()[b, 0, i, j]
            total = total - F.logsigmoid(z if mask[b, i, j] == 1 else -z)
            count += 1
        losses[f'loss_unity_s{stride}'] = total / max(count, 1)
    # the finest level: pixels whose finest cell is not done
    stride = head.strides[-1]
    raw, _ = loop_relabel(labels, head.strides, 'naive', unity)
    done = (raw[-1] != 255) & (classes[-1] == 255)
    big = F.interpolate(sem[-1].double(), scale_factor=stride, mode='bilinear')
    total, count = 0., 0
    for b, i, j in (labels != 255).nonzero().tolist():
        if not done[b, i // stride, j // stride]:
            total = total - big[b, :, i, j].log_softmax(0)[labels[b, i, j]]
            count += 1
    losses[f'loss_sem_s{stride}'] = total / max(count, 1)
    return losses


@pytest.mark.parametrize('relabel', ['naive', 'gt_unity', 'true_positive'])
@pytest.mark.parametrize('strides', [STRIDES, (32, 4)])
def test_losses_by_loops(relabel, strides):
    head = build_head(targets=dict(relabel=relabel), strides=strides).train()
    labels = label_map((75, 96), classes=5, block=30, batch=2)
    outputs = head(features((75, 96)))
    found = head.loss_by_feat(outputs, samples(labels))
    expected = slow_losses(head, *outputs, labels)
    assert {k for k in found if 'loss' in k} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), torch.as_tensor(value).double(),
                                   atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f'{n}: {m}')


def test_losses_have_weights():
    labels, maps = samples(label_map((96, 128), classes=5)), features()
    one = build_head().loss(maps, labels, {})
    weighed = build_head(loss_decode=dict(
        sem_weights=(2, 3, 4, 5), unity_weights=(6, 7, 8))).loss(maps, labels, {})
    factors = dict(zip((f'loss_sem_s{s}' for s in STRIDES), (2, 3, 4, 5), strict=True))
    factors |= dict(zip((f'loss_unity_s{s}' for s in STRIDES), (6, 7, 8), strict=False))
    assert factors.keys() == {k for k in one if 'loss' in k}
    for name, factor in factors.items():
        torch.testing.assert_close(weighed[name], factor * one[name])


def test_the_finest_level_can_learn_majorities():
    head = build_head(targets=dict(finest='majority', relabel='gt_unity'))
    labels = label_map((75, 96), classes=5)
    sem, unity = head(features((75, 96)))
    found = head.loss_by_feat((sem, unity), samples(labels))['loss_sem_s4']
    classes, masks = pyramid_targets(labels, STRIDES)
    target = majority_targets(labels, 4)
    done = done_cells([m == 1 for m in masks], (2, 2, 2), [c.shape[1:] for c in classes[1:]])[-1]
    torch.testing.assert_close(found, F.cross_entropy(sem[-1], target.masked_fill(done, 255),
                                                      ignore_index=255))


def test_no_gradient_where_nothing_counts_nor_through_the_choice():
    head = build_head()
    labels = label_map((96, 96), classes=5, block=40)
    g = torch.Generator().manual_seed(3)
    sem = [torch.randn(2, 5, *grid_size((96, 96), s), generator=g, requires_grad=True)
           for s in STRIDES]
    unity = [torch.randn(2, 1, *grid_size((96, 96), s), generator=g, requires_grad=True)
             for s in STRIDES[:-1]]
    losses = head.loss_by_feat((sem, unity), samples(labels))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    classes, masks = loop_relabel(labels, STRIDES, 'true_positive', unity)
    for logits, target in zip((*sem[:-1], *unity), (*classes[:-1], *masks), strict=True):
        moved = logits.grad.abs().sum(1) > 0
        assert torch.equal(moved, target != 255)
        assert not (target != 255).all() and moved.any()
    # only by its own loss does a unity map learn
    alone = torch.autograd.grad(sum(
        v for k, v in head.loss_by_feat((sem, unity), samples(labels)).items()
        if 'loss_sem' in k), unity, allow_unused=True)
    assert alone == (None, None, None)


@pytest.mark.parametrize('options', [
    dict(), dict(context=POOLED), dict(context=FINEST), dict(context=EVERY_LEVEL),
    dict(context=FINEST_LEVEL), dict(unity_head='joint'), dict(context=COARSER_TOKENS),
    dict(strides=(32, 4)), dict(strides=(4,)), dict(channels=None),
    single(0), single(0.4), single(0) | dict(context=POOLED), single(0) | dict(context=FINEST),
    dict(context=dict(detach_coarse=True)), dict(context=dict(attention_strides=(32,))),
    dict(targets=dict(require_class=True)), dict(proj_channels=3),
    dict(targets=dict(finest='majority'))], ids=str)
@pytest.mark.parametrize('ignored', [False, True])
def test_every_parameter_has_a_finite_gradient(options, ignored):
    """What DDP needs, also of a batch in which nothing is labeled."""
    head = build_head(**options).train()
    labels = label_map((96, 128), classes=5)
    losses = head.loss(features(), samples(torch.full_like(labels, 255) if ignored else labels), {})
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for name, p in head.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert not ignored or p.grad.eq(0).all(), name


def test_figures_by_counting():
    head = build_head()
    labels = label_map((96, 128), classes=5, block=48)
    sem, unity = head(features())
    found = head.loss_by_feat((sem, unity), samples(labels))
    _, truth = pyramid_targets(labels, STRIDES)
    decided = torch.zeros(2, 24, 32, dtype=torch.bool)
    fused = torch.full((2, 24, 32), -1)
    for stride, s, u, t in zip(STRIDES, sem, (*unity, None), (*truth, None), strict=True):
        if stride < 32:
            cells = F.avg_pool2d(decided[:, None].float(), stride // 4)
            assert set(cells.unique().tolist()) <= {0, 1}
            assert found[f'active_s{stride}'] == pytest.approx(
                100 * float((cells == 0).float().mean()))
        positive = u[:, 0] >= 0 if u is not None else torch.ones(2, 24, 32).bool()
        if u is not None:
            hit = int((positive & (t == 1)).sum())
            assert found[f'unity_recall_s{stride}'] == pytest.approx(
                100 * hit / int((t == 1).sum()))
            assert found[f'unity_precision_s{stride}'] == pytest.approx(
                100 * hit / int((positive & (t != 255)).sum()))
        repeat = [x.repeat_interleave(stride // 4, 1).repeat_interleave(stride // 4, 2)
                  for x in (positive, s.argmax(1))]
        fused[repeat[0] & ~decided] = repeat[1][repeat[0] & ~decided]
        decided |= repeat[0]
    target = labels[:, 2::4, 2::4]
    known = target != 255
    assert found['acc_seg'] == pytest.approx(100 * float((fused == target)[known].float().mean()))
    assert 0 < found['active_s4'] < found['active_s8'] < 100
    assert all('loss' not in k for k in found if not k.startswith('loss_'))


def test_single_output_is_the_finest_level():
    head = build_head(**single(0.4), fusion=dict(space='logit', upsample='nearest'))
    sem, unity = head(features())
    assert len(sem) == 4 and unity == []
    assert torch.equal(head.predict(features(), metas((96, 128)), {}), up(sem[-1], 4, (96, 128)))


@pytest.mark.parametrize('size', [(96, 128), (500, 375), (33, 65), (31, 31)])
@torch.no_grad()
def test_pixels_keep_their_places_at_any_size(size):
    """Every pixel has the class of its own cells, of the coarsest level with unity there."""
    head = build_head(fusion=dict(upsample='nearest', space='logit'))
    maps = features(size)
    sem, unity = head(maps)
    found = head.predict(maps, metas(size), {})
    assert tuple(found.shape) == (2, 5, *size)
    for y, x in {(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)}:
        for b in range(2):
            for s, u, stride in zip(sem, (*unity, None), STRIDES, strict=True):
                if u is None or u[b, 0, y // stride, x // stride] >= 0:
                    assert torch.equal(found[b, :, y, x], s[b, :, y // stride, x // stride])
                    break


def test_maps_of_another_size_are_refused():
    head = build_head()
    with pytest.raises(ValueError, match='needs a first input map of 25x32 cells for an image of '
                                         '97x128, got 24x32'):
        head.predict(features(), metas((97, 128)), {})
    with pytest.raises(ValueError, match='for an image of 92x128, got 24x32'):
        head.loss(features(), samples(label_map((92, 128))), {})


SPARSE_ON = dict(fusion=dict(sparse=True))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(targets=dict(relabel='oracle')),
     "PyramidTargets.relabel must be one of .*'true_positive'.*, got 'oracle'"),
    (dict(targets=dict(finest='nearest')),
     "PyramidTargets.finest must be one of .*, got 'nearest'"),
    (dict(fusion=dict(space='max')), "PyramidFusion.space must be one of .*, got 'max'"),
    (dict(fusion=dict(upsample='cubic')), "PyramidFusion.upsample must be one of .*, got 'cubic'"),
    (dict(fusion=dict(unity_thr=1)), r'PyramidFusion.unity_thr must be in \(0, 1\), got 1'),
    (dict(context='none'), "context must be the config of a component such as CoarseToFineContext, "
                           "without .*, got 'none'"),
    (dict(context=dict(channels=3)), r"context must be .* without \['channels', 'norm_cfg', "
                                     r"'strides'\], got \{'channels': 3\}"),
    (dict(context=dict(kv_source='finer')),
     "CoarseToFineContext.kv_source must be .*, got 'finer'"),
    (dict(context=dict(attention_strides=(64,))),
     r'attention_strides must be one of \(32, 16, 8, 4\), got 64'),
    (dict(unity_head='no'), "unity_head must be one of .*'joint', None.*, got 'no'"),
    (dict(strides=(32, 24, 4)), 'each a proper divisor'),
    (dict(num_classes=1), 'num_classes must be at least 2, got 1'),
    (dict(channels=15), 'CoarseToFineContext.channels must be even, got 15'),
    (dict(channels=15, context=FINEST), 'FinestContext.channels must be even, got 15'),
    (dict(loss_decode=dict(sem_weights=(1, 1))),
     r'sem_weights must be 4 positive numbers, .* got \(1, 1\)'),
    (dict(loss_decode=dict(sem_weights=(0, 1, 1, 1))), 'sem_weights must be 4 positive'),
    (dict(loss_decode=dict(unity_weights=(1, -1, 1))), 'unity_weights must be 3 positive'),
    (single(1) | dict(loss_decode=dict(sem_weights=(1, 1, 1, 0))),
     'sem_weights must be 4 positive numbers, coarse to fine, zero for levels without'),
    (dict(loss_decode=[dict(type='mmsparse.PyramidLoss')]), 'loss_decode must be the config of a'),
    (dict(unity_head=None), "targets.relabel must be 'naive' or 'gt_unity' with unity_head=None"),
    (single(0) | dict(context=EVERY_LEVEL), 'sem_weights may be zero only with a context'),
    (single(0) | dict(context=dict(detach_coarse=True)), 'sem_weights may be zero only with a con'),
    (SPARSE_ON | dict(strides=(4,)), 'fusion.sparse needs unity maps'),
    (SPARSE_ON | single(1), 'fusion.sparse needs unity maps'),
    (SPARSE_ON | dict(context=dict(upsample='bilinear')),
     "sparse needs context.upsample='nearest'"),
    (SPARSE_ON | dict(norm_cfg=dict(type='GN', num_groups=2)), "norm_cfg .* got 'GN'")], ids=str)
def test_the_head_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build_head(**options)


@pytest.mark.parametrize('options', [
    dict(align_corners=True), dict(out_channels=1), dict(sampler=dict(type='OHEMPixelSampler')),
    dict(loss_decode=dict(type='mmseg.CrossEntropyLoss'))], ids=str)
def test_what_mmsegs_heads_take_and_this_one_cannot(options):
    with pytest.raises(TypeError, match='unexpected keyword argument'):
        build_head(**options)


@pytest.mark.parametrize(('options', 'names'), [
    (dict(), 'in_proj context.merge.s16 context.merge.s8 context.merge.s4 context.attend.s32 '
             'context.attend.s16 context.attend.s8 context.attend.s4 sem.s32 sem.s16 sem.s8 sem.s4 '
             'unity.s32 unity.s16 unity.s8'),
    (dict(context=POOLED, channels=None),
     'sem.s32 sem.s16 sem.s8 sem.s4 unity.s32 unity.s16 unity.s8'),
    (dict(strides=(32, 4), unity_head='joint', context=EVERY_LEVEL),
     'in_proj context.attend.s32 context.attend.s4 sem.s32 sem.s4')], ids=str)
def test_checkpoints_keep_their_names_and_their_order(options, names):
    """In the order of an optimizer's state, which a resumed training goes by."""
    parents = dict.fromkeys(
        key if key == 'in_proj' else '.'.join(name.split('.')[:2 + (key == 'context')])
        for name, _ in build_head(**options).named_parameters() for key in [name.split('.')[0]])
    assert ' '.join(parents) == names


# ---- sparse inference -----------------------------------------------------------------------

SPARSE = [dict(context=POOLED), dict(), dict(context=COARSER_TOKENS), dict(context=FINEST),
          dict(context=FINEST_LEVEL), dict(context=EVERY_LEVEL), dict(unity_head='joint'),
          dict(strides=(32, 4)), dict(context=dict(attention_strides=(32, 16))),
          dict(context=dict(merge='add', kv_source='coarser', attention_strides=(8, 4))),
          dict(context=dict(detach_coarse=True))]


@pytest.mark.parametrize('options', SPARSE, ids=str)
@pytest.mark.parametrize('size', [(96, 128), (75, 133), (31, 31)])
@torch.no_grad()
def test_sparse_inference_is_dense_inference(options, size):
    head = build_head(fusion=dict(sparse=True), **options)
    maps = features(size)
    outputs = head(maps)
    expected, found = head.fuse_levels(outputs), head.fuse_active(maps)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    best = expected.topk(2, 1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])
    positive = [u.sigmoid() >= 0.5 for u in outputs[1]]
    done = done_cells(positive, head.ratios, [s.shape[2:] for s in outputs[0][1:]])
    for stride, cells in zip(head.strides[1:], done, strict=True):
        assert head.active_share[stride] == pytest.approx(
            1 - float(cells.float().mean()), abs=1e-6)
    if size == (96, 128):
        assert 0 < head.active_share[4] < 1
    dense = build_head(**options)
    torch.testing.assert_close(head.predict(maps, metas(size), {}),
                               dense.predict(maps, metas(size), {}), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('bias', [-1e4, 1e4])
@pytest.mark.parametrize('options', SPARSE, ids=str)
@torch.no_grad()
def test_sparse_inference_with_all_or_nothing_active(options, bias):
    head = build_head(fusion=dict(sparse=True), **options)
    for stride in head.strides[:-1]:
        conv = (head.unity if head.unity else head.sem)[f's{stride}'].conv
        conv.bias[-1] = bias
    found = head.fuse_active(features())
    torch.testing.assert_close(found, head.fuse_levels(head(features())), atol=1e-5, rtol=1e-5)
    assert set(head.active_share.values()) == {float(bias < 0)}


@torch.no_grad()
def test_sparse_inference_computes_only_what_is_read(monkeypatch):
    """With tokens of the coarsest level, no layer behind the projection sees an inactive cell."""
    head = build_head(fusion=dict(sparse=True), context=COARSER_TOKENS)
    seen = {}
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, i, o, name=name: seen.setdefault(name, []).append(o[0, 0].numel()))
    head.fuse_active(features(batch=1))
    active = {s: round(head.active_share[s] * math.prod(grid_size((96, 128), s)))
              for s in (16, 8, 4)}
    for stride, count in active.items():
        for name in (f'context.merge.s{stride}.conv', f'sem.s{stride}.conv',
                     f'context.attend.s{stride}.attention.query_project.conv',
                     f'context.attend.s{stride}.bottleneck.conv'):
            assert seen[name] == [count], name
    assert 0 < active[4] < 24 * 32


@torch.no_grad()
def test_sparse_inference_on_a_fused_model_and_in_training():
    head = build_head(fusion=dict(sparse=True)).double()
    maps = [m.double() for m in features()]
    expected = head.predict(maps, metas((96, 128)), {})
    head.train()
    head.active_share = {}
    head.predict(maps, metas((96, 128)), {})
    assert head.active_share == {}, 'batch statistics need all cells'
    fused = fuse_for_inference(build_head(fusion=dict(sparse=True)).double())
    maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    torch.testing.assert_close(fused.predict(maps, metas((96, 128)), {}), expected,
                               atol=1e-4, rtol=1e-4)


# ---- in mmseg's segmentor -------------------------------------------------------------------


@pytest.mark.parametrize('size', [(96, 96), (75, 133), (31, 31)])
@pytest.mark.parametrize('sparse', [False, True])
@torch.no_grad()
def test_images_of_any_size_padded_and_not(size, sparse):
    model = segmentor(fusion=dict(sparse=sparse, upsample='nearest'))
    result, = model.test_step(image_batch([size]))
    assert result.seg_logits.shape == result.pred_sem_seg.shape == size
    torch.testing.assert_close(result.seg_logits.data.exp().sum(0), torch.ones(size))
    model.data_preprocessor.test_cfg = None
    assert model.test_step(image_batch([size]))[0].pred_sem_seg.shape == size


@torch.no_grad()
def test_one_window_is_the_whole_and_windows_are_averaged():
    whole = segmentor()
    expected = whole.test_step(image_batch([(96, 128)]))[0].seg_logits.data
    one = segmentor(dict(mode='slide', crop_size=(96, 128), stride=(64, 64)))
    assert torch.equal(one.test_step(image_batch([(96, 128)]))[0].seg_logits.data, expected)
    two = segmentor(dict(mode='slide', crop_size=(96, 96), stride=(32, 32)))
    found = two.test_step(image_batch([(96, 128)]))[0].seg_logits.data
    x = whole.data_preprocessor(image_batch([(96, 128)]), False)['inputs']
    parts = [whole.encode_decode(x[..., s], metas((96, 96), 1)) for s in (
        slice(0, 96), slice(32, 128))]
    torch.testing.assert_close(found[..., :32], parts[0][0, ..., :32])
    torch.testing.assert_close(found[..., 32:96],
                               (parts[0][0, ..., 32:] + parts[1][0, ..., :64]) / 2)


@torch.no_grad()
def test_test_time_augmentation_averages_probabilities():
    model = segmentor()
    images = [image_batch([(96, 128)]), image_batch([(96, 128)], flip=True,
                                                     flip_direction='horizontal')]
    images[1]['inputs'] = [images[1]['inputs'][0].flip(2)]
    results = [model.test_step(data) for data in images]
    merged, = SegTTAModel(module=model).merge_preds([[r[0] for r in results]])
    mean = sum(r[0].seg_logits.data.softmax(0) for r in results) / 2
    best = mean.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(merged.pred_sem_seg.data[0][clear], mean.argmax(0)[clear])


def test_it_learns_two_images_by_heart():
    model = segmentor()
    model.init_weights()
    model.train()
    labels = label_map((96, 96), classes=5, block=40, void=0)
    data = dict(inputs=[(label * 50).byte().repeat(3, 1, 1) for label in labels],
                data_samples=samples(labels))
    data = model.data_preprocessor(data, True)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(100):
        loss, log = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0] and log['decode.acc_seg'] > 85
    assert log['decode.unity_recall_s32'] == 100 and log['decode.active_s4'] < 100


def test_ddp_finds_every_parameter_used():
    """Without ``find_unused_parameters``: the second step would raise."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = DistributedDataParallel(segmentor().train())
        labels = label_map((96, 96), classes=5)
        for step in range(3):
            data = dict(inputs=[torch.zeros(3, 96, 96, dtype=torch.uint8)] * 2,
                        data_samples=samples(torch.full_like(labels, 255) if step == 1 else labels))
            losses = model(**model.module.data_preprocessor(data, True), mode='loss')
            sum(v for k, v in losses.items() if 'loss' in k).backward()
            assert all(p.grad is not None for p in model.parameters())
            model.zero_grad()
    finally:
        dist.destroy_process_group()


# ---- counts ---------------------------------------------------------------------------------


def conv(c_in, c_out, kernel=1, bias=False, norm=True):
    return c_in * c_out * kernel ** 2 + c_out * bias + 2 * c_out * norm


def head_parameters(d, k, levels=4, inputs=720, hidden=None, kv_coarser=False):
    hidden = hidden or d
    attention = (conv(d, d // 2) * 2 - d - d * d // 2 + d * d // 2 + d // 2  # key; value, bias
                 + conv(d // 2, d, bias=True, norm=False) + conv(2 * d, d))
    if kv_coarser:
        extra = (levels - 1) * conv(d, d // 2)
    else:
        extra = 0
    merge = conv(2 * d, d)

    def projection(out):
        return conv(d, hidden) + conv(hidden, out, bias=True, norm=False)
    return (conv(inputs, d) + levels * attention + extra + (levels - 1) * merge
            + levels * projection(k) + (levels - 1) * projection(1))


@pytest.mark.parametrize(('options', 'arguments'), [
    (dict(), dict(d=512, k=150)), (dict(num_classes=171), dict(d=512, k=171)),
    (dict(channels=384), dict(d=384, k=150)), (dict(strides=(32, 4)), dict(d=512, k=150, levels=2)),
    (dict(proj_channels=256), dict(d=512, k=150, hidden=256)),
    (dict(context=COARSER_TOKENS), dict(d=512, k=150, kv_coarser=True))], ids=str)
def test_parameters_of_the_head(options, arguments):
    with torch.device('meta'):
        head = SpecializeFuseHead(**dict(in_channels=WIDTHS, channels=512,
                                         num_classes=150) | options)
    assert sum(p.numel() for p in head.parameters()) == head_parameters(**arguments)


def head_macs(d, k, cells, inputs=720):
    """The full method; ``cells`` of the levels, coarse to fine."""
    total = inputs * d * cells[-1]
    for level, n in enumerate(cells):
        total += n * d * d // 2 + 110 * d * d // 2  # keys that are queries; values of the tokens
        total += 2 * n * 110 * d // 2 + n * d * d // 2 + n * 2 * d * d  # attention, out, bottleneck
        total += n * 2 * d * d * (level > 0)  # merge
        total += n * (d * d + d * k) + (level < len(cells) - 1) * n * (d * d + d)
    return total


@pytest.mark.parametrize(('d', 'size', 'giga'), [(512, (512, 512), 44.5), (384, (512, 512), 26.7),
                                                 (512, (500, 375), None)])
def test_multiply_accumulates_of_the_head(d, size, giga):
    with torch.device('meta'):
        head = SpecializeFuseHead(in_channels=WIDTHS, channels=d, num_classes=150).eval()
        maps = [torch.empty(1, c, *grid_size(size, 4 << i)) for i, c in enumerate(WIDTHS)]
    found = dense_macs(lambda: head.predict(maps, metas(size, 1), {}))
    assert found == head_macs(d, 150, [math.prod(grid_size(size, s)) for s in STRIDES])
    assert giga is None or round(found / 1e9, 1) == giga


# ---- decoder --------------------------------------------------------------------------------

def decoder_counts(modules, cells=(16384, 4096, 1024, 256)):
    """Parameters and multiply-accumulates: blocks of two 3x3, then every branch to every other."""
    weights = [(a, n, conv(c, a, 3)) for a, c, n in zip(WIDTHS, RESNET, cells, strict=True)]
    for _ in range(modules):
        weights += [(c, n, conv(c, c, 3)) for c, n in zip(WIDTHS, cells, strict=True)] * 8
        for i, out in enumerate(WIDTHS):
            for j, c in enumerate(WIDTHS):
                if j > i:
                    weights.append((out, cells[j], conv(c, out)))
                for step in range(j + 1, i + 1):
                    width = out if step == i else c
                    weights.append((width, cells[step], conv(c, width, 3)))
    return (sum(w for _, _, w in weights),
            sum((w - 2 * out) * n for out, n, w in weights))


@pytest.mark.parametrize(('modules', 'giga'), [(3, 43), (1, 19)])
def test_counts_of_the_decoder(modules, giga):
    with torch.device('meta'):
        neck = HRFusionDecoder(in_channels=RESNET, num_modules=modules).eval()
        maps = [torch.empty(1, c, 128 >> i, 128 >> i) for i, c in enumerate(RESNET)]
    parameters, macs = decoder_counts(modules)
    assert sum(p.numel() for p in neck.parameters()) == parameters
    assert dense_macs(lambda: neck(maps)) == macs
    assert round(macs / 1e9) == giga, 'as estimated from the paper'


@pytest.mark.parametrize('size', [(96, 96), (75, 133)])
def test_the_decoder_keeps_sizes_and_inputs_and_reaches_all(size):
    neck = HRFusionDecoder(in_channels=(4, 6, 8, 10), channels=(3, 4, 5, 6), num_modules=2)
    maps = [torch.randn(2, c, *grid_size(size, 4 << i), requires_grad=True)
            for i, c in enumerate((4, 6, 8, 10))]
    kept = [m.detach().clone() for m in maps]
    out = neck(maps)
    assert [tuple(o.shape) for o in out] == [
        (2, c, *grid_size(size, 4 << i)) for i, c in enumerate((3, 4, 5, 6))]
    assert all(torch.equal(m, k) for m, k in zip(maps, kept, strict=True))
    for o in out:
        grads = torch.autograd.grad(o.sum(), maps, retain_graph=True)
        assert all(g.abs().sum() > 0 for g in grads)
    sum(o.sum() for o in out).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_the_decoder_refuses():
    with pytest.raises(ValueError, match=r'same two or more maps, got \(4, 6\) and \(48, 96, 192'):
        HRFusionDecoder(in_channels=(4, 6))
    with pytest.raises(ValueError, match='num_modules must be at least 1, got 0'):
        HRFusionDecoder(in_channels=RESNET, num_modules=0)
