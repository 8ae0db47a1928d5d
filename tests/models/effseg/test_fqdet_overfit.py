"""EffSeg on a narrow FQDet learns eight real images by heart, from nothing."""
import copy
import json
import os
from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from mmengine.model import bias_init_with_prob
from mmengine.optim import build_optim_wrapper

from tests.models.effseg.fqdet_builders import config

DATA = Path(os.environ.get('MMSPARSE_DATA', 'data')) / 'coco128'
ANNOTATIONS = DATA / 'annotations' / 'instances_train2017.json'
STEPS, SIDE, WIDTH = 320, 160, 64
# All but those of the last two stages' doubts and of the last stage: they are asked of ever harder
# cells. By how sums are rounded the last stage's loss falls by a tenth, or not at all; that it
# learns shows test_it_learns_fine_masks.
FALLING = ('loss', 'loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask_seg_0', 'loss_mask_ref_0',
           'loss_mask_seg_1', 'loss_mask_ref_1', 'loss_mask_seg_2')


def narrow():
    """A quarter of the channels, half of the decoder; norms that train as they test."""
    cfg = config('fqdet-effseg_r50_fpn_1x_coco')
    model = cfg.model
    model.backbone.update(depth=18, init_cfg=None, frozen_stages=-1, norm_eval=False,
                          norm_cfg=dict(type='GN', num_groups=8))
    model.neck.update(in_channels=[64, 128, 256, 512], out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, bottleneck=16, num_queries=100)
    model.roi_head.bbox_head.update(in_channels=WIDTH, num_layers=3, ffn_channels=256)
    model.roi_head.mask_roi_extractor.out_channels = WIDTH
    model.roi_head.mask_head.update(
        in_channels=WIDTH, query_channels=WIDTH, num_convs=2, budget=dict(per_image=1000))
    torch.manual_seed(0)
    model = MODELS.build(model)
    model.init_weights()
    # The authors start every class at a probability of 0.5: hundreds of steps to unlearn.
    torch.nn.init.constant_(model.roi_head.bbox_head.classify.last.bias[:80],
                            bias_init_with_prob(0.01))
    return model, cfg


def eight_images(tmp_path):
    """The first with one to four objects, all of a fair size."""
    coco = json.loads(ANNOTATIONS.read_text())
    own = {i['id']: [a for a in coco['annotations'] if a['image_id'] == i['id']]
           for i in coco['images']}
    coco['images'] = [i for i in sorted(coco['images'], key=lambda i: i['id'])
                      if 1 <= len(own[i['id']]) <= 4 and all(
                          a['area'] > 0.02 * i['width'] * i['height'] and not a['iscrowd']
                          for a in own[i['id']])][:8]
    coco['annotations'] = [a for i in coco['images'] for a in own[i['id']]]
    path = tmp_path / 'eight.json'
    path.write_text(json.dumps(coco))
    data = CocoDataset(
        data_root=str(DATA), ann_file=str(path), data_prefix=dict(img='train2017/'), pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=(
                'img_id', 'ori_shape', 'img_shape', 'scale_factor'))])
    assert len(data) == 8
    return [data[i] for i in range(8)]


@pytest.mark.slow
@pytest.mark.skipif(not ANNOTATIONS.is_file(), reason='needs coco128 in $MMSPARSE_DATA')
def test_it_learns_eight_images(tmp_path):
    model, cfg = narrow()
    images = eight_images(tmp_path)
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.optim_wrapper.paramwise_cfg.custom_keys = dict(sampling_offsets=dict(lr_mult=0.1))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = [g['lr'] for g in optimizer.optimizer.param_groups]
    history = []
    for step in range(STEPS):
        scale = min(1.0, (step + 1) / 20, (STEPS - step) / 80)
        for group, rate in zip(optimizer.optimizer.param_groups, rates, strict=True):
            group['lr'] = scale * rate
        # preparing pads masks where they are
        some = copy.deepcopy([images[(4 * step + k) % 8] for k in range(4)])
        losses = model(**model.data_preprocessor(pseudo_collate(some), True), mode='loss')
        total, logged = model.parse_losses(losses)
        optimizer.update_params(total)
        history.append({k: float(v) for k, v in logged.items()})
        if step % 20 == 0:
            print(step, {k: round(v, 3) for k, v in history[-1].items()}, flush=True)
    model.eval()
    boxes, masks = [], []
    for image in images:
        truth = image['data_samples'].gt_instances
        result = model.test_step(pseudo_collate(copy.deepcopy([image])))[0]
        found = result.pred_instances
        factor = torch.tensor(result.scale_factor).repeat(2)
        overlaps = bbox_overlaps(truth.bboxes.tensor, found.bboxes * factor)
        for g, label in enumerate(truth.labels):
            # the surest of its class that lies there
            mine = ((found.labels == label) & (overlaps[g] > 0.5)).nonzero()[:, 0][:1]
            boxes += [float(overlaps[g, mine].sum() * (found.scores[mine].sum() > 0.2))]
            mask = truth.masks.resize(tuple(found.masks.shape[1:])).to_tensor(torch.bool, 'cpu')[g]
            joint = (mask & found.masks[mine]).sum()
            masks += [float(joint / (mask | found.masks[mine]).sum().clamp(min=1))]
    print('boxes', boxes, 'masks', masks)
    for key in FALLING:  # in the first steps hardly a query is matched, and no mask is asked for
        first, last = (sum(h[key] for h in part) / 10 for part in (history[10:20], history[-10:]))
        assert last < 0.9 * first, (key, first, last)
    assert sum(b > 0.7 for b in boxes) >= 0.8 * len(boxes)
    assert sum(m > 0.6 for m in masks) >= 0.8 * len(masks)
