"""Things by EffSeg on FQDet and stuff by Panoptic FPN's head, on COCO128's panoptic annotations.

mmdet reads and scores panoptic pictures with the package panopticapi, which is on no registry.
Where it is missing, what mmdet takes from it stands here, written from COCO's definition.
"""
import copy
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import mmcv
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric
from mmengine.dataset import pseudo_collate
from mmengine.structures import PixelData

from tests.models.effseg.builders import losses_of
from tests.models.effseg.fqdet_builders import PANOPTIC, config, thin

DATA = Path(os.environ.get('MMSPARSE_DATA', 'data')) / 'coco128'
needs_data = pytest.mark.skipif(
    not (DATA / 'annotations' / 'panoptic_train2017.json').is_file(),
    reason='needs coco128 with panoptic annotations in $MMSPARSE_DATA')


def rgb2id(color):
    return color.astype(np.int64) @ np.array([1, 256, 256**2])


def id2rgb(number):
    return np.stack([number // 256**i % 256 for i in range(3)], -1)


class Category:
    def __init__(self):
        self.tp = self.fp = self.fn = 0
        self.iou = 0.0


class PQStat:
    """Panoptic quality: overlaps of matched segments over matched and half of the unmatched."""

    def __init__(self):
        self.pq_per_cat = defaultdict(Category)

    def __getitem__(self, category):
        return self.pq_per_cat[category]

    def __iadd__(self, other):
        for key, own in other.pq_per_cat.items():
            for name in ('tp', 'fp', 'fn', 'iou'):
                setattr(self[key], name, getattr(self[key], name) + getattr(own, name))
        return self

    def pq_average(self, categories, isthing):
        found, every = {}, []
        for key, info in categories.items():
            own = self[key]
            if isthing is not None and (info['isthing'] == 1) != isthing:
                continue
            total = own.tp + own.fp / 2 + own.fn / 2
            quality = dict(pq=own.iou / total if total else 0.0,
                           sq=own.iou / own.tp if own.tp else 0.0,
                           rq=own.tp / total if total else 0.0)
            found[key] = quality
            if total:
                every.append(quality)
        mean = {k: sum(q[k] for q in every) / max(len(every), 1) for k in ('pq', 'sq', 'rq')}
        return dict(mean, n=len(every)), found


@pytest.fixture
def panopticapi(monkeypatch):
    """The package, or what mmdet takes from it."""
    try:
        import panopticapi.utils  # noqa: F401
    except ImportError:
        package, utils = ModuleType('panopticapi'), ModuleType('panopticapi.utils')
        utils.rgb2id, utils.id2rgb, package.utils = rgb2id, id2rgb, utils
        monkeypatch.setitem(sys.modules, 'panopticapi', package)
        monkeypatch.setitem(sys.modules, 'panopticapi.utils', utils)
        for module in (panoptic_utils, coco_panoptic_metric):
            for name, value in dict(panopticapi=package, rgb2id=rgb2id, id2rgb=id2rgb, VOID=0,
                                    OFFSET=256**3, PQStat=PQStat).items():
                monkeypatch.setattr(module, name, value, raising=False)


def pipelines(short=128):
    cfg = config(PANOPTIC)
    steps = cfg.train_dataloader.dataset.pipeline
    load = steps[:2]
    assert load[1].type == 'LoadPanopticAnnotations'
    return [*load, dict(type='Resize', scale=(2 * short, short), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=(
                'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'seg_map_path',
                'segments_info'))]


def samples(count):
    own = config(PANOPTIC).train_dataloader.dataset
    data = CocoPanopticDataset(
        data_root=str(DATA), ann_file=own.ann_file, data_prefix=dict(own.data_prefix),
        pipeline=pipelines(), indices=count)
    return data, [data[i] for i in range(count)]


def score(data, results):
    metric = coco_panoptic_metric.CocoPanopticMetric(
        ann_file=str(DATA / 'annotations' / 'panoptic_train2017.json'),
        seg_prefix=str(DATA / 'annotations' / 'panoptic_train2017'))
    metric.dataset_meta = data.metainfo
    metric.process({}, [r.to_dict() for r in results])
    return metric.evaluate(len(results))


@needs_data
def test_it_trains_predicts_and_is_scored(panopticapi):
    model = thin(PANOPTIC)
    data, found = samples(2)
    losses = losses_of(model, pseudo_collate(copy.deepcopy(found)))
    assert {'loss_seg', 'loss_cls', 'loss_rpn_cls', 'loss_mask_seg_0'} <= set(losses)
    assert all(v.isfinite() for v in losses.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.eval()
    # nothing is learned: scores are near 0, masks near 0.5
    model.roi_head.test_cfg.update(score_thr=0.0, mask_thr_binary=0.45)
    results = model.test_step(pseudo_collate(found))
    for result in results:
        segments = result.pred_panoptic_seg.sem_seg
        assert segments.shape == (1, *result.ori_shape)
        labels = segments % 1000
        assert ((labels >= 0) & (labels <= 133)).all() and (segments >= 1000).any()
    scores = score(data, results)
    assert all(0 <= v < 50 for v in scores.values()) and 'coco_panoptic/PQ' in scores


@needs_data
def test_true_segments_score_a_hundred(panopticapi):
    """Labels, order of classes, ids of instances and pictures as mmdet's metric reads them."""
    data, found = samples(3)
    results = []
    for one in found:
        sample = one['data_samples']
        picture = sample.seg_map_path
        ids = rgb2id(mmcv.imread(picture, channel_order='rgb'))
        segments = np.full(ids.shape, 133)
        for number, info in enumerate(sample.segments_info):
            label = info['category']
            segments[ids == info['id']] = label + (1000 * (number + 1) if label < 80 else 0)
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(segments)[None])
        results.append(sample)
    scores = score(data, results)
    assert scores['coco_panoptic/PQ'] == pytest.approx(100)
    assert scores['coco_panoptic/PQ_th'] == scores['coco_panoptic/PQ_st'] == pytest.approx(100)


@needs_data
def test_quality_by_hand(panopticapi, tmp_path):
    """Half of a large segment is a match of 0.6, a missing one counts half."""
    truth = json.loads((DATA / 'annotations' / 'panoptic_train2017.json').read_text())
    assert {c['isthing'] for c in truth['categories']} == {0, 1}
    stat = PQStat()
    stat[1].tp, stat[1].iou, stat[1].fn = 1, 0.6, 1
    average, _ = stat.pq_average({1: dict(isthing=1), 2: dict(isthing=0)}, None)
    assert average == pytest.approx(dict(pq=0.4, sq=0.6, rq=2 / 3, n=1))
    colors = np.array([[[1, 2, 3], [0, 0, 255]]], np.uint8)
    assert np.array_equal(id2rgb(rgb2id(colors)), colors)
