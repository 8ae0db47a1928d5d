"""EffSeg's masks and its baselines on mmdet's detectors: training, test, edge cases."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmsparse.engine.config import read_config
from tests.models.effseg.builders import FOLDER, HOSTS, batch, losses_of, narrow, thin

# test_fqdet_configs.py builds the others
ALL = sorted(p.stem for p in FOLDER.glob('*.py') if not p.stem.startswith('fqdet'))
HEADS = [f'{name}-plus_r50_fpn_1x_coco' for name in ('mask-rcnn', 'pointrend', 'refinemask')]
LOSSES = dict(zip(HEADS, (1, 2, 4), strict=True))


@pytest.mark.parametrize('name', ALL)
def test_every_config_builds(name):
    cfg = read_config(str(FOLDER / f'{name}.py'))
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.roi_head.with_mask and cfg.backend_args is None
    assert model.backbone.depth == (101 if '_r101_' in name else 50)
    assert cfg.train_cfg.max_epochs == (
        8 if 'cityscapes' in name else 24 if '_2x_' in name else 12)
    milestones = next(s.milestones for s in cfg.param_scheduler if s.type == 'MultiStepLR')
    assert milestones == ([7] if 'cityscapes' in name else [16, 22] if '_2x_' in name else [8, 11])
    head = model.roi_head.mask_head
    if name.startswith('effseg'):
        assert head.budget == (None if '-dense' in name else dict(per_roi=100) if 'roi100' in name
                               else dict(threshold=0.5) if 'threshold' in name
                               else dict(per_image=10_000))
    query = head.fusion.project.in_features
    assert query == (256 if 'queryinst' in name or 'sparse' in name else 1024)
    if 'cityscapes' in name:
        heads = model.roi_head.bbox_head
        heads = heads if isinstance(heads, torch.nn.ModuleList) else [heads]
        assert {h.num_classes for h in heads} == {8}
        assert 'cityscapes' in str(cfg.val_dataloader.dataset.ann_file).lower() or (
            'cityscapes' in cfg.val_dataloader.dataset.data_root)


@pytest.mark.parametrize('by', [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', HOSTS + HEADS)
def test_it_trains_and_predicts(name, by):
    """A fourth as wide as the config's, and as wide."""
    model = thin(name, by)
    losses = losses_of(model, batch())
    masks = {k: v for k, v in losses.items() if 'mask' in k or 'point' in k}
    assert len(masks) == LOSSES.get(name, 8), list(losses)
    assert all(v.isfinite() for v in losses.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    head = model.roi_head.mask_head
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    model.eval()
    model.test_cfg.rcnn.score_thr = 0.0
    results = model.test_step(batch())
    for result in results:
        found = result.pred_instances
        assert len(found) > 5 and found.masks.shape == (len(found), 192, 256)
        assert found.masks.dtype == torch.bool
        assert (found.mask_scores <= found.scores + 1e-6).all()
        assert found.bboxes[:, 2].max() > 128, 'boxes are of the original size'


@pytest.mark.parametrize('name', HOSTS + HEADS)
def test_images_without_objects(name):
    model = thin(name)
    losses = losses_of(model, batch((0, 0)))
    masks = {k: v for k, v in losses.items() if 'mask' in k or 'point' in k}
    assert masks and all(float(v) == 0 for v in masks.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad is not None for p in model.roi_head.mask_head.parameters())
    losses = losses_of(model, batch((2, 0)))
    assert all(v.isfinite() for v in losses.values())


@pytest.mark.parametrize('name', HOSTS[:1] + HEADS)
@pytest.mark.parametrize('encode', [False, True])
def test_no_detections(name, encode):
    model = thin(name).eval()
    model.roi_head.test_cfg.update(score_thr=2.0, encode_masks=encode)
    for result in model.test_step(batch()):
        assert len(result.pred_instances) == len(result.pred_instances.masks) == 0


def results_with(boxes, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else labels
    return InstanceData(bboxes=boxes, labels=labels, scores=torch.linspace(0.9, 0.5, len(boxes)))


def masks_of(model, results, rescale=True):
    data = model.data_preprocessor(batch())
    feats = model.extract_feat(data['inputs'])
    metas = [s.metainfo for s in data['data_samples']]
    return model.roi_head.predict_mask(feats, metas, results, rescale=rescale)


@torch.no_grad()
def test_tiny_and_degenerate_boxes():
    model = thin(HOSTS[0]).eval()
    boxes = [[10, 10, 60, 60], [5, 5, 5, 5], [20, 20, 20.3, 20.2], [30, 40, 20, 10],
             [-50, -50, -10, -10], [0, 0, 128, 96]]
    found = masks_of(model, [results_with(boxes), results_with(boxes[:1])])
    assert found[0].masks.shape == (6, 192, 256) and len(found[1].masks) == 1
    assert found[0].mask_scores.isfinite().all()
    assert not found[0].masks[4].any(), 'beyond the image'


@torch.no_grad()
def test_equal_boxes_share_a_mask_and_a_forward_pass(monkeypatch):
    model = thin(HOSTS[0]).eval()
    seen = []
    forward = model.roi_head.mask_head.forward
    monkeypatch.setattr(model.roi_head.mask_head, 'forward',
                        lambda feats, roi_feats, rois, *rest: seen.append(len(rois)) or forward(
                            feats, roi_feats, rois, *rest))
    a, b = [10.0, 10, 60, 60], [40.0, 20, 100, 90]
    found = masks_of(model, [results_with([a, b, a]), results_with([b])])
    assert seen == [3]
    assert torch.equal(found[0].masks[0], found[0].masks[2])
    alone = masks_of(model, [results_with([b]), results_with([b])])
    # another number of RoIs may round otherwise
    assert (alone[0].masks[0] != found[0].masks[1]).float().mean() < 1e-3


@torch.no_grad()
def test_scores_and_run_length_codes():
    """Eq. (3) by hand, and codes that are the masks."""
    model = thin(HOSTS[0]).eval()
    boxes = [[10.0, 10, 60, 60], [40.0, 20, 100, 90]]
    found = masks_of(model, [results_with(boxes), results_with(boxes)])[0]
    model.roi_head.test_cfg.encode_masks = True
    codes = masks_of(model, [results_with(boxes), results_with(boxes)])[0]
    assert torch.equal(torch.from_numpy(coco_mask.decode(codes.masks)).permute(2, 0, 1).bool(),
                       found.masks)
    torch.testing.assert_close(codes.mask_scores, found.mask_scores)
    model.roi_head.test_cfg.update(mask_scoring=False, encode_masks=False)
    plain = masks_of(model, [results_with(boxes), results_with(boxes)])[0]
    assert 'mask_scores' not in plain and torch.equal(plain.masks, found.masks)
    certainty = found.mask_scores / found.scores
    has = found.masks.flatten(1).any(1)
    assert (certainty[has] > 0.5).all() and (certainty[~has] == 0).all()


@torch.no_grad()
def test_masks_at_the_networks_size():
    model = thin(HOSTS[0]).eval()
    found = masks_of(model, [results_with([[10.0, 10, 60, 60]])] * 2, rescale=False)[0]
    assert found.masks.shape == (1, 96, 128) and found.bboxes.tolist() == [[10, 10, 60, 60]]


@torch.no_grad()
def test_a_stock_head_without_query_gives_mmdets_own_masks():
    """Eq. (3) alone, for any mask head: the masks are those of mmdet."""
    name = HEADS[0]
    cfg = read_config(str(FOLDER / f'{name}.py'))
    stock = read_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    init_default_scope('mmdet')
    models = []
    for c in (cfg, stock):
        narrow(c.model)
        c.model.backbone.update(depth=18, init_cfg=None)
        c.model.neck.in_channels = [64, 128, 256, 512]
        if c is cfg:
            c.model.roi_head.mask_head.query_channels = None
        models.append(MODELS.build(c.model).eval())
    mine, stock = models
    state = {k.replace('mask_head.', 'mask_head.head.'): v for k, v in stock.state_dict().items()}
    mine.load_state_dict(state)
    boxes = [[10.0, 10, 60, 60], [40.0, 20, 100, 90]]
    a, b = (masks_of(m, [results_with(boxes), results_with(boxes[:1])])[0] for m in (mine, stock))
    assert (a.masks != b.masks).float().mean() < 1e-3
    assert 'mask_scores' in a and 'mask_scores' not in b


def test_refined_boxes_are_those_after_the_box_head():
    """With deltas of zero they are the proposals, and the losses equal those of proposals."""
    models = [thin(n) for n in (HOSTS[0], 'effseg_mask-rcnn-refined_r50_fpn_1x_coco')]
    models[1].load_state_dict(models[0].state_dict())
    values = []
    for shift in (0.0, 1.0):
        for model in models:
            torch.nn.init.zeros_(model.roi_head.bbox_head.fc_reg.weight)
            torch.nn.init.constant_(model.roi_head.bbox_head.fc_reg.bias, shift)
            torch.manual_seed(0)
            values.append(float(losses_of(model, batch())['loss_mask_seg_0']))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[2] == pytest.approx(values[0], rel=1e-5) and values[3] != pytest.approx(
        values[2], rel=1e-3)


@pytest.mark.parametrize('change, error', [
    (dict(mask_roi_extractor=None), 'mask_roi_extractor'),
    (dict(train_boxes='gt'), 'train_boxes'),
    (dict(bbox_head=dict(_delete_=True, type='BBoxHead', num_classes=80)), 'Shared2FCBBoxHead')])
def test_bad_settings(change, error):
    cfg = read_config(str(FOLDER / f'{HOSTS[0]}.py'))
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    cfg.merge_from_dict(dict(model=dict(roi_head={
        k: v for k, v in change.items() if v is not None})))
    for key, value in change.items():
        if value is None:
            cfg.model.roi_head[key] = None
    with pytest.raises(ValueError, match=error):
        MODELS.build(cfg.model)


def test_parameters_of_the_baselines():
    """As the paper's, with a query of 256."""
    for name, total in zip(HEADS, (2_906_192, 3_191_968, 6_580_590), strict=True):
        cfg = read_config(str(FOLDER / f'{name}.py'))
        init_default_scope('mmdet')
        with torch.device('meta'):
            head = MODELS.build(cfg.model.roi_head.mask_head)
        assert sum(p.numel() for p in head.parameters()) - 768 * 256 == total


@torch.no_grad()
def test_sizes_of_the_masks():
    for name, size in zip(HOSTS[:1] + HEADS, (112, 28, 224, 112), strict=True):
        model = thin(name).eval()
        data = model.data_preprocessor(batch())
        feats = model.extract_feat(data['inputs'])
        rois = torch.tensor([[0, 10.0, 10, 60, 60], [1, 40.0, 20, 100, 90]])
        logits = model.roi_head.mask_logits(feats, rois, torch.tensor([3, 5]))
        assert logits.shape == (2, 1, size, size)
