"""FQDet's parts: counts of the paper, matching and decoding by loops, selection, detections."""
import itertools
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmsparse.models.effseg import DeformableEncoder, FQDetBBoxHead, FQDetRPNHead
from mmsparse.models.effseg.deformable_encoder import grid_points
from mmsparse.models.effseg.matching import best_anchors, match_queries, selection_targets
from mmsparse.models.effseg.query_decoder import anchor_frames, detect

FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
STRIDES = (4, 8, 16, 32, 64, 128)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def count(*modules) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def rpn_head(strides=STRIDES, **kwargs) -> FQDetRPNHead:
    torch.manual_seed(1)
    return FQDetRPNHead(loss_cls=FOCAL, anchor_generator=dict(
        type='AnchorGenerator', strides=list(strides), ratios=[0.5, 1.0, 2.0], octave_base_scale=4,
        scales_per_octave=3, center_offset=0.5, scale_major=False), **kwargs)


def box_head(**kwargs) -> FQDetBBoxHead:
    torch.manual_seed(1)
    return FQDetBBoxHead(**{**dict(
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'), loss_cls=FOCAL,
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)), **kwargs})


def second_version(**kwargs) -> FQDetBBoxHead:
    return box_head(
        ffn_channels=2048, anchor_code=False, branches='plain', soft_labels=True,
        reg_decoded_bbox=True,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, loss_weight=0.5),
        loss_bbox=dict(type='EIoULoss', loss_weight=1.85), **kwargs)


def small(**kwargs) -> FQDetBBoxHead:
    return box_head(in_channels=16, num_classes=3, strides=(4, 8), num_layers=2, ffn_channels=24,
                    **kwargs)


def pyramid(images=2, channels=16, size=(48, 64), levels=2, dtype=torch.float32):
    return [torch.randn(images, channels, -(-size[0] // (4 << i)), -(-size[1] // (4 << i)),
                        dtype=dtype) for i in range(levels)]


def random_boxes(n, size=(48, 64), least=4.0):
    corner = torch.rand(n, 2) * torch.tensor([size[1], size[0]]) * 0.7
    return torch.cat([corner, corner + least + torch.rand(n, 2) * 30], 1)


# ---- counts -------------------------------------------------------------------------------------

def test_parameters_are_the_papers():
    first, second = rpn_head(), box_head()
    assert count(first) == 736_137
    assert count(second.code) == 67_584 and count(second.decoder) == 5_753_184
    assert count(second.classify) == 153_425 and count(second.regress) == 133_636
    assert count(first, second) == 6_843_966


def test_parameters_of_the_second_version():
    """Its four models have 40.524, 40.810, 44.199 and 41.827 million."""
    first, second = rpn_head(num_queries=600), second_version()
    assert second.code is None and count(second.decoder) == 8_905_056
    assert count(second.classify) == 20_817 and count(second.regress) == 198_916
    assert count(first, second) == 9_860_926
    detector = 23_232_512 + 4_524_544 + count(first, second)
    for head, total in ((2_906_192, '40.524'), (3_191_968, '40.810'), (6_580_590, '44.199'),
                        (4_208_872, '41.827')):
        assert f'{(detector + head) / 1e6:.3f}' == total


def test_anchors():
    """Nine of a location, at the middle of its cell, 670,000 of an image of 800x1110."""
    first = rpn_head()
    maps = [torch.empty(1, 1, math.ceil(800 / s), math.ceil(1110 / s)) for s in STRIDES]
    anchors = first.all_anchors(maps)
    assert len(anchors) == 9 * sum(m.shape[2] * m.shape[3] for m in maps)
    assert abs(len(anchors) - 6.7e5) < 5e3
    expected = []
    for j, ratio in itertools.product(range(3), (0.5, 1.0, 2.0)):
        side = 16 * 2 ** (j / 3)
        w, h = side / math.sqrt(ratio), side * math.sqrt(ratio)
        expected.append([6 - w / 2, 2 - h / 2, 6 + w / 2, 2 + h / 2])
    torch.testing.assert_close(anchors[9:18], torch.tensor(expected))  # second cell of P2


# ---- matching -----------------------------------------------------------------------------------

def iou(a, b):
    """Of two boxes, in Python's floats."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return w * h / (area - w * h) if w * h else 0.0


def matched_by_loops(anchors, boxes, chosen, positives, candidates):
    """Targets of the selection and objects of the queries, image by image, box by box."""
    wanted = torch.zeros(len(boxes), len(anchors), dtype=torch.bool)
    objects, before = torch.full_like(chosen, -1), 0
    for i, own in enumerate(boxes):
        best = {}
        for g, box in enumerate(own.tolist()):
            values = [iou(box, a) for a in anchors.tolist()]
            order = sorted(range(len(values)), key=lambda a: -values[a])
            for rank, a in enumerate(order[:candidates]):
                if values[a] <= 0:
                    continue
                wanted[i, a] |= rank < positives
                key = (rank, -values[a], g)
                best[a] = min(best.get(a, key), key)
        for q, a in enumerate(chosen[i].tolist()):
            if a in best:
                objects[i, q] = before + best[a][2]
        before += len(own)
    return wanted, objects


@pytest.mark.parametrize('objects', [(0,), (0, 0), (1,), (3, 0, 40), (2, 5)])
def test_matching_is_that_of_loops(objects):
    """No two anchors alike, so that there is one best order."""
    anchors = random_boxes(150)
    boxes = [random_boxes(n) for n in objects]
    if objects[-1] > 4:  # objects that compete for the same anchors
        boxes[-1][2:4] = boxes[-1][:1] + torch.rand(2, 4)
    chosen = torch.stack([torch.randperm(150)[:60] for _ in objects])
    found = best_anchors(anchors, boxes, 15)
    wanted, queries = matched_by_loops(anchors, boxes, chosen, 5, 15)
    assert torch.equal(selection_targets(found, len(boxes), 150, 5), wanted)
    assert torch.equal(match_queries(found, chosen, 150), queries)
    assert (queries >= 0).any() == any(objects)


def test_matching_knows_the_second_best_object():
    """An anchor that is second for one object and first for another learns the other."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]])
    boxes = [torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11.5]])]
    found = best_anchors(anchors, boxes, 15)
    assert match_queries(found, torch.tensor([[2, 1, 0]]), 3).tolist() == [[-1, 1, 0]]
    assert match_queries(found, torch.tensor([[2, 0]]), 3).tolist() == [[-1, 0]]
    boxes = [torch.tensor([[5.0, 5, 5, 5]])]  # no area: nobody overlaps it
    found = best_anchors(anchors, boxes, 15)
    assert not selection_targets(found, 1, 3, 5).any()
    assert match_queries(found, torch.tensor([[0, 1]]), 3).tolist() == [[-1, -1]]


# ---- selection ----------------------------------------------------------------------------------

@pytest.mark.parametrize('images', [1, 3])
def test_selection_by_loops(images):
    first = rpn_head((4, 8), in_channels=16, bottleneck=8, num_queries=20).double()
    x = pyramid(images, dtype=torch.float64)
    feats, logits = first(x)
    chosen, queries = first.select(feats, logits)
    raw = torch.cat([level.flatten(2).transpose(1, 2) for level in x], 1)
    anchors = first.all_anchors(x)
    assert logits.shape == (images, len(anchors)) and chosen.shape == (images, 20)
    for i in range(images):
        order = sorted(range(len(anchors)), key=lambda a, i=i: -logits[i, a])
        assert chosen[i].tolist() == order[:20]
        for q, a in enumerate(order[:20]):
            own = first.transitions[a % 9](raw[i, a // 9])
            torch.testing.assert_close(queries[i, q], own)
    # where an anchor is, is where its score was read: level 2 begins after 9 * 12 * 16
    place = 9 * 12 * 16 + 9 * (2 * 8 + 3) + 4
    level = first.first(x[1])
    level = level + first.block(level)
    torch.testing.assert_close(logits[0, place], first.scores(level)[0, 4, 2, 3])
    assert anchors[place].view(2, 2).mean(0).tolist() == [3.5 * 8, 2.5 * 8]


def test_every_transition_gets_a_gradient():
    """Those of anchors that nobody selected get zeros, for DDP."""
    first = rpn_head((4, 8), in_channels=16, bottleneck=8, num_queries=2)
    results = first.predict(pyramid(1), [None])
    results[0].features.sum().backward()
    grads = [[p.grad for p in t.parameters()] for t in first.transitions]
    assert all(g is not None for own in grads for g in own)
    assert sum(any(g.abs().sum() > 0 for g in own) for own in grads) <= 2


def test_small_maps_have_fewer_anchors_than_queries():
    first = rpn_head((64, 128), in_channels=32, bottleneck=16)
    assert len(first.predict([torch.randn(1, 32, 1, 1)] * 2, [None])[0].bboxes) == 18


def test_selection_loss_by_loops():
    first = rpn_head((4, 8), in_channels=16, bottleneck=8, num_queries=30)
    x, truth = pyramid(2), [random_boxes(2, least=20.0), torch.zeros(0, 4)]
    samples = [ConfigDict(gt_instances=InstanceData(bboxes=b)) for b in truth]
    losses, results = first.loss_and_predict(x, samples)
    anchors, logits = first.all_anchors(x), first(x)[1].double()
    chosen = first.select(*first(x))[0]
    wanted, objects = matched_by_loops(anchors, truth, chosen, 5, 15)
    p = logits.sigmoid()
    values = torch.where(wanted, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p ** 2 * (1 - p).log())
    expected = values.sum() / max(1, (objects >= 0).sum())
    torch.testing.assert_close(losses['loss_rpn_cls'].double(), expected, rtol=1e-5, atol=0)
    assert torch.equal(torch.stack([r.matched for r in results]), objects)


# ---- decoder ------------------------------------------------------------------------------------

def norm(x, layer):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def bilinear(level, x, y):
    """A map ``[C, H, W]`` at a point in its pixels, 0 beyond it, pixel by pixel."""
    x, y = x - 0.5, y - 0.5
    left, top = math.floor(x.item()), math.floor(y.item())
    value = torch.zeros_like(level[:, 0, 0])
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < level.shape[1] and 0 <= column < level.shape[2]:
            value = value + level[:, row, column] * (
                1 - (x - column).abs()) * (1 - (y - row).abs())
    return value


def cross_attention(layer, query, maps, anchor, strides, heads=8):
    """One query of one image, one sample of each head on each level."""
    levels, width = len(maps), query.shape[-1] // heads
    offsets = layer.sampling_offsets(query).view(heads, levels, 2)
    weights = layer.attention_weights(query).view(heads, levels).softmax(-1)
    values = [layer.value_proj(m.permute(1, 2, 0)).permute(2, 0, 1) for m in maps]
    size = anchor[2:] - anchor[:2]
    out = []
    for h in range(heads):
        seen = 0
        for i, (level, stride) in enumerate(zip(values, strides, strict=True)):
            x, y = ((anchor[:2] + anchor[2:]) / 2 + offsets[h, i] * size / 2) / stride
            seen = seen + weights[h, i] * bilinear(level[h * width:(h + 1) * width], x, y)
        out.append(seen)
    return layer.output_proj(torch.cat(out))


def self_attention(layer, x, code, heads=8):
    w, b = layer.attn.in_proj_weight.chunk(3), layer.attn.in_proj_bias.chunk(3)
    q, k, v = ((y @ w[i].T + b[i]).unflatten(-1, (heads, -1)).transpose(0, 1)
               for i, y in enumerate((x + code, x + code, x)))
    mixed = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return layer.attn.out_proj(mixed.transpose(0, 1).flatten(1))


def branch(layers, x):
    def one(layer, x):
        return layer[2](norm(x, layer[0]).clamp(min=0))
    x = one(layers.first, x)
    return layers.last(x + one(layers.second, x))


def decoded_by_loops(head, x, anchors, queries, shapes):
    found = []
    for i in range(len(queries)):
        rows, code = queries[i], torch.zeros_like(queries[i])
        if head.code is not None:
            h, w = shapes[i]
            a = anchors[i]
            code = head.code.first(torch.stack([
                (a[:, 0] + a[:, 2]) / 2 / w, (a[:, 1] + a[:, 3]) / 2 / h,
                (a[:, 2] - a[:, 0]) / w, (a[:, 3] - a[:, 1]) / h], 1))
            code = code + head.code.second[2](norm(code, head.code.second[0]).clamp(min=0))
        for layer in head.decoder:
            seen = norm(rows, layer.norms[0]) + code
            rows = rows + torch.stack([
                cross_attention(layer.attentions[0], seen[q], [m[i] for m in x], anchors[i, q],
                                head.strides) for q in range(len(rows))])
            rows = rows + self_attention(layer.attentions[1], norm(rows, layer.norms[1]), code)
            inner = norm(rows, layer.norms[2]) @ layer.ffns[0].layers[0][0].weight.T
            inner = (inner + layer.ffns[0].layers[0][0].bias).clamp(min=0)
            rows = rows + layer.ffns[0].layers[1](inner)
        found.append(rows)
    return torch.stack(found)


@pytest.mark.parametrize('images, code', [(1, True), (2, True), (2, False)])
def test_the_decoder_is_that_of_loops(images, code):
    """Forward and gradients in float64, on a map that reaches beyond the image."""
    head = small(anchor_code=code).double()
    for layer in head.decoder:  # the stock start has no offsets or weights of the query's own
        for part in (layer.attentions[0].sampling_offsets, layer.attentions[0].attention_weights):
            torch.nn.init.normal_(part.weight, std=0.1)
    x = [f.requires_grad_() for f in pyramid(images, size=(44, 60), dtype=torch.float64)]
    anchors = torch.stack([random_boxes(3) for _ in range(images)]).double()
    queries = torch.randn(images, 3, 16, dtype=torch.float64, requires_grad=True)
    shapes = [(44, 60), (40, 52)][:images]
    found = head(x, [InstanceData(bboxes=a, features=q) for a, q in zip(
        anchors, queries, strict=True)],
                 [dict(img_shape=s) for s in shapes])
    rows = decoded_by_loops(head, x, anchors, queries, shapes)
    torch.testing.assert_close(found.queries, rows, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.logits, branch(head.classify, rows), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.deltas, branch(head.regress, rows), rtol=1e-9, atol=1e-9)
    wanted = [queries, *x, *(p for p in head.parameters())]
    weight = torch.randn_like(rows)
    mine = torch.autograd.grad((found.queries * weight).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((rows * weight).sum(), wanted, allow_unused=True)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_frames_do_not_stretch():
    """A point of the image is the same point of every map, whatever the padding."""
    frames = anchor_frames(torch.tensor([[[10.0, 20, 30, 60]]]), [(25, 38), (2, 3)], [4, 64])
    pixels = frames[0, 0, :, :2] * torch.tensor([[38.0 * 4, 25 * 4], [3 * 64, 2 * 64]])
    torch.testing.assert_close(pixels, torch.tensor([[20.0, 40.0]] * 2))


# ---- losses -------------------------------------------------------------------------------------

def decoded(head, objects, queries=6):
    """A decoding with matches, and its truth."""
    images = len(objects)
    x = pyramid(images)
    anchors = torch.stack([random_boxes(queries) for _ in objects])
    found = head(x, [InstanceData(bboxes=a, features=torch.randn(queries, 16)) for a in anchors],
                 [dict(img_shape=(48, 64))] * images)
    truth = [InstanceData(bboxes=random_boxes(n), labels=torch.randint(0, 3, (n,)))
             for n in objects]
    matched = torch.full((images, queries), -1)
    for i, n in enumerate(objects):
        for q in range(min(4, 2 * n)):
            matched[i, q + 1] = q % n
    return found, matched, truth


def deltas_of(anchor, box):
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    bw, bh = box[2] - box[0], box[3] - box[1]
    return [((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / w,
            ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / h, math.log(bw / w),
            math.log(bh / h)]


@pytest.mark.parametrize('objects', [(2,), (0,), (0, 3), (1, 0, 2), (0, 0)])
def test_losses_by_loops(objects):
    """Sums of focal loss, no object being a class, and of L1, over the number of matches."""
    head = small()
    found, matched, truth = decoded(head, objects)
    losses, matches, factor = head.loss(found, matched, truth)
    number, classes, boxes = max(1, int((matched >= 0).sum())), 0.0, 0.0
    for i, q in itertools.product(range(len(objects)), range(6)):
        g = int(matched[i, q])
        label = 3 if g < 0 else int(truth[i].labels[g])
        for k in range(4):  # the last is that of no object
            p = 1 / (1 + math.exp(-float(found.logits[i, q, k])))
            classes -= (0.25 * (1 - p) ** 2 * math.log(p) if k == label
                        else 0.75 * p ** 2 * math.log(1 - p))
        if g >= 0:
            target = deltas_of(found.anchors[i, q].tolist(), truth[i].bboxes[g].tolist())
            boxes += sum(abs(a - b) for a, b in zip(found.deltas[i, q].tolist(), target,
                                                    strict=True))
    assert float(losses['loss_cls']) == pytest.approx(classes / number, rel=1e-4)
    assert float(losses['loss_bbox']) == pytest.approx(boxes / number, rel=1e-4, abs=1e-7)
    assert float(factor) == number
    for i, match in enumerate(matches):
        assert match.pos_inds.tolist() == (matched[i] >= 0).nonzero()[:, 0].tolist()
        assert torch.equal(match.pos_assigned_gt_inds, matched[i][match.pos_inds])
        assert torch.equal(match.pos_gt_labels, truth[i].labels[match.pos_assigned_gt_inds])
        assert match.pos_priors.shape == (len(match.pos_inds), 4)
        assert not match.pos_priors.requires_grad
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('objects', [(2,), (0, 3), (0,)])
def test_losses_of_the_second_version_by_loops(objects):
    """Class targets are overlaps, 1 for no object; boxes are compared as boxes."""
    head = small(branches='plain', soft_labels=True, reg_decoded_bbox=True,
                 loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, loss_weight=0.5),
                 loss_bbox=dict(type='EIoULoss', loss_weight=1.85))
    found, matched, truth = decoded(head, objects)
    assert found.logits.shape[-1] == 4
    losses, matches, _ = head.loss(found, matched, truth)
    number, classes = max(1, int((matched >= 0).sum())), 0.0
    for i in range(len(objects)):
        predicted = dict(zip(matches[i].pos_inds.tolist(), matches[i].pos_priors.tolist(),
                             strict=True))
        for q, k in itertools.product(range(6), range(4)):
            g, p = int(matched[i, q]), 1 / (1 + math.exp(-float(found.logits[i, q, k])))
            goal = float(g < 0 and k == 3)
            if g >= 0 and int(truth[i].labels[g]) == k:
                goal = iou(predicted[q], truth[i].bboxes[g].tolist())
            classes -= abs(goal - p) ** 2 * (goal * math.log(p) + (1 - goal) * math.log(1 - p))
    assert float(losses['loss_cls']) == pytest.approx(0.5 * classes / number, rel=1e-4)
    assert (float(losses['loss_bbox']) > 0) == any(objects)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


# ---- detections ---------------------------------------------------------------------------------

CFG = ConfigDict(nms_pre=1000, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5),
                 max_per_img=100)


def detected_by_loops(scores, boxes, cfg):
    pairs = sorted(((float(scores[q, k]), q, k) for q, k in itertools.product(
        range(len(scores)), range(scores.shape[1]))), reverse=True)[:cfg.nms_pre]
    kept = []
    for score, q, k in pairs:
        if score > cfg.score_thr and all(
                k != other or iou(boxes[q].tolist(), boxes[r].tolist()) <= cfg.nms.iou_threshold
                for _, r, other in kept):
            kept.append((score, q, k))
    return kept[:cfg.max_per_img]


@pytest.mark.parametrize('change', [{}, dict(max_per_img=5), dict(nms_pre=17),
                                    dict(score_thr=0.6), dict(score_thr=2.0)])
def test_detections_by_loops(change):
    """Every detection knows its query, and a query may stand for several classes."""
    cfg = ConfigDict(CFG, **change)
    scores, boxes = torch.rand(40, 3), random_boxes(40)
    found, expected = detect(scores, boxes, cfg), detected_by_loops(scores, boxes, cfg)
    assert found.query_inds.tolist() == [q for _, q, _ in expected]
    assert found.labels.tolist() == [k for _, _, k in expected]
    assert torch.equal(found.bboxes, boxes[found.query_inds])
    torch.testing.assert_close(found.scores, scores[found.query_inds, found.labels])
    if not change:
        assert len(found.query_inds.unique()) < len(found)


def test_no_object_is_no_detection():
    head = small()
    found, *_ = decoded(head, (1,))
    logits = torch.full_like(found.logits, -9.0)
    logits[..., 3] = 9.0
    result = head.predict(found._replace(logits=logits), CFG)[0]
    assert (result.labels < 3).all() and (result.scores < 0.01).all()


@pytest.mark.parametrize('delta', [3.0, 6.0, 50.0])
def test_boxes_are_not_cut(delta):
    """Neither by the image nor, short of numbers that float32 cannot square, by their anchors."""
    head = small()
    found, *_ = decoded(head, (1,))
    found = found._replace(deltas=torch.full_like(found.deltas, delta))
    result = head.predict(found, CFG)[0]
    for box, query in zip(result.bboxes, result.query_inds, strict=True):
        size = found.anchors[0, query, 2:] - found.anchors[0, query, :2]
        torch.testing.assert_close(box[2:] - box[:2], size * min(math.exp(delta), 1e6))
    assert (result.bboxes < 0).any()


def test_every_class_is_as_likely_as_not_at_the_start():
    """Within what torch's own start of a linear layer of 16 inputs gives, at most 1/4."""
    for kwargs in ({}, dict(branches='plain')):
        layer = small(**kwargs).classify
        assert getattr(layer, 'last', layer).bias.abs().max() <= 0.25


# ---- deformable encoder -------------------------------------------------------------------------

def test_the_deformable_pyramid():
    neck = DeformableEncoder()
    assert count(neck) == 12_018_176
    neck = DeformableEncoder(in_channels=(8, 8, 16, 16), channels=64, num_layers=1, ffn_channels=16)
    neck.init_weights()
    for p in neck.parameters():  # attention begins blind to what is asked
        p.data.add_(torch.randn_like(p), alpha=0.02)
    maps = [torch.randn(2, c, 104 // s, 72 // s) for c, s in (
        (8, 4), (8, 8), (16, 16), (16, 32))]
    levels = neck(maps)
    assert [tuple(f.shape) for f in levels] == [
        (2, 64, h, w) for h, w in ((26, 18), (13, 9), (6, 4), (3, 2), (2, 1), (1, 1))]
    sum(f.square().mean() for f in levels).backward()
    for name, p in neck.named_parameters():
        # a group norm takes biases before it away
        assert p.grad is not None and (p.grad.abs().sum() > 0 or name.endswith('bias')), name
    alone = neck([m[1:] for m in maps])
    for a, b in zip(alone, levels, strict=True):
        torch.testing.assert_close(a, b[1:], rtol=1e-4, atol=1e-5)


def test_points_of_the_encoder_are_cell_centers():
    points = grid_points([(2, 3), (1, 1)], 'cpu')
    expected = [[(x + 0.5) / 3, (y + 0.5) / 2] for y in range(2) for x in range(3)] + [[0.5, 0.5]]
    torch.testing.assert_close(points, torch.tensor(expected))


def encoded_by_loops(neck, maps):
    """One image; the stock layer: attention, norm, feed-forward layers, norm."""
    layer, shapes = neck.encoder.layers[0], [m.shape[1:] for m in maps]
    points = [((x + 0.5) / w, (y + 0.5) / h) for h, w in shapes
              for y, x in itertools.product(range(h), range(w))]
    rows = torch.cat([m.flatten(1).T for m in maps])
    code = torch.cat([
        neck.position(torch.zeros(1, *shape, dtype=torch.bool))[0].flatten(1).T.to(rows) + own
        for shape, own in zip(shapes, neck.level.weight, strict=True)])
    attention = layer.self_attn
    values = [attention.value_proj(m.permute(1, 2, 0)).permute(2, 0, 1) for m in maps]
    out = []
    for row, own, point in zip(rows, code, points, strict=True):
        offsets = attention.sampling_offsets(row + own).view(8, 4, 4, 2)
        weights = attention.attention_weights(row + own).view(8, 16).softmax(1).view(8, 4, 4)
        heads = []
        for h, channels in enumerate(torch.arange(len(row)).chunk(8)):
            heads.append(sum(
                weights[h, i, p] * bilinear(
                    values[i][channels], point[0] * shape[1] + offsets[h, i, p, 0],
                    point[1] * shape[0] + offsets[h, i, p, 1])
                for (i, shape), p in itertools.product(enumerate(shapes), range(4))))
        out.append(row + attention.output_proj(torch.cat(heads)))
    rows = norm(torch.stack(out), layer.norms[0])
    return norm(rows + layer.ffn.layers[1](layer.ffn.layers[0](rows)), layer.norms[1])


def test_the_deformable_encoder_is_that_of_loops():
    neck = DeformableEncoder(in_channels=(8, 8, 16, 16), channels=32, num_layers=1, ffn_channels=16)
    neck.double().eval()
    attention = neck.encoder.layers[0].self_attn
    for part in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.normal_(part.weight, std=0.1)
    maps = [torch.randn(2, 32, h, w, dtype=torch.float64, requires_grad=True)
            for h, w in ((4, 3), (2, 2), (1, 2), (1, 1))]
    found = torch.cat([m.flatten(2) for m in neck._encode(maps)], 2).transpose(1, 2)
    expected = torch.stack([encoded_by_loops(neck, [m[i] for m in maps]) for i in range(2)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # points are float32
    weight = torch.randn_like(found)
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), maps) for x in (found, expected)),
                    strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ---- settings -----------------------------------------------------------------------------------

@pytest.mark.parametrize('build, error', [
    (lambda: rpn_head(num_queries=0), 'num_queries'),
    (lambda: rpn_head(positives=0), 'positives'),
    (lambda: rpn_head(candidates=4), 'candidates'),
    (lambda: small(branches='wide'), 'branches'),
    (lambda: box_head(num_classes=0), 'num_classes'),
    (lambda: DeformableEncoder(in_channels=(8, 8)), 'in_channels')])
def test_bad_settings(build, error):
    with pytest.raises(ValueError, match=error):
        build()
