"""Objects of scenes as an mmdet dataset: exact masks, stock transforms and metrics."""

from functools import partial

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco

from mmsparse.datasets import scene_objects
from mmsparse.datasets.scene_objects import CLASSES, OBJECTS
from mmsparse.datasets.scenes import draw_scene, render_instances, render_label, render_scene
from mmsparse.registry import METRICS

SIZE = (192, 384)


@pytest.fixture(autouse=True)
def mmdet_scope():
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')


def dataset(pipeline=(), **kwargs):
    cfg = dict(type='mmsparse.SceneInstanceDataset', length=3, size=SIZE, pipeline=list(pipeline))
    return DATASETS.build(cfg | kwargs)


def masks_of(info):
    return np.stack([coco.decode(thing['mask']) for thing in info['instances']]).astype(bool)


PACK = dict(type='PackDetInputs', meta_keys=(
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'instances'))
LOAD = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)


@pytest.mark.parametrize('index', range(3))
def test_objects_are_what_the_label_says(index):
    """Masks are disjoint and, with those to be ignored, all of the label of their class."""
    info, label = dataset(seed=4).get_data_info(index), render_label(index, SIZE, 4)
    masks = masks_of(info)
    assert masks.any((1, 2)).all() and masks.sum(0).max() == 1
    names = dataset().metainfo['classes']
    for k, name in enumerate(names):
        own = [thing['bbox_label'] == k for thing in info['instances']]
        np.testing.assert_array_equal(masks[own].any(0), label == CLASSES.index(name))
    assert names == ('traffic sign', 'traffic light', 'car', 'pedestrian')


def test_boxes_are_tight_and_small_objects_ignored():
    info = dataset(min_area=60).get_data_info(1)
    flags = []
    for thing, mask in zip(info['instances'], masks_of(info), strict=True):
        left, top, right, bottom = (int(v) for v in thing['bbox'])
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        flags.append(thing['ignore_flag'])
        assert flags[-1] == (mask.sum() < 60)
    assert 0 < sum(flags) < len(flags)
    assert (info['height'], info['width']) == SIZE


@pytest.mark.parametrize('seed', range(3))
def test_every_thing_drawn_is_an_object_of_its_own(monkeypatch, seed):
    """Told apart by which call drew the materials; a call for signs draws one or two."""
    spans = []

    def spy(name, draw, canvas, *args):
        first = len(canvas.classes)
        draw(canvas, *args)
        spans.append((name, first, len(canvas.classes)))
    for name in ('car', 'pedestrian', 'traffic_light', 'sign'):
        monkeypatch.setattr(scene_objects, name, partial(spy, name, getattr(scene_objects, name)))
    canvas, _ = draw_scene(0, SIZE, seed)
    ids, labels = canvas.instances(OBJECTS)
    label, seen = canvas.labels(), set()
    for name, first, behind in spans:
        own = (canvas.map >= first) & (canvas.map < behind) & np.isin(label, OBJECTS)
        numbers = set(ids[own].tolist())
        assert 0 not in numbers and not numbers & seen
        assert len(numbers) <= (2 if name == 'sign' else 1)
        seen |= numbers
    assert seen == set(range(1, len(labels) + 1)) == set(ids[ids > 0].tolist())
    doubles = [name for name, a, b in spans if name == 'sign' and len(np.unique(
        ids[(canvas.map >= a) & (canvas.map < b) & (ids > 0)])) == 2]
    assert doubles, 'two signs on a pole are two objects'


def test_instances_leave_the_scene_as_it_is():
    ids, labels = render_instances(2, SIZE, 1)
    label = render_scene(2, SIZE, 1)[1]
    np.testing.assert_array_equal(np.append(255, labels)[ids],
                                  np.where(np.isin(label, OBJECTS), label, 255))


def test_same_scene_same_objects():
    whole, part = dataset(length=4, seed=2), dataset(length=1, first_index=3, seed=2)
    a, b = whole.get_data_info(3), part.get_data_info(0)
    assert a['instances'] == b['instances'] and a['img_path'] == b['img_path']
    assert a['img_id'] == b['img_id'] == 3
    assert dataset(seed=3, length=4).get_data_info(3)['instances'] != a['instances']


def test_stock_transforms_load_the_same_as_ours():
    pipelines = [[dict(type=name), LOAD, dict(type='RandomFlip', prob=1.0), PACK]
                 for name in ('LoadImageFromFile', 'mmsparse.RenderScene')]
    read, rendered = (dataset(pipeline)[1] for pipeline in pipelines)
    assert read['inputs'].equal(rendered['inputs'])
    truth, info = rendered['data_samples'].gt_instances, dataset().get_data_info(1)
    kept = [not thing['ignore_flag'] for thing in info['instances']]
    np.testing.assert_array_equal(truth.masks.masks, masks_of(info)[kept][:, :, ::-1])
    assert len(rendered['data_samples'].ignored_instances) == len(kept) - sum(kept) > 0


@pytest.mark.parametrize('metric', ['mmsparse.BoundaryCocoMetric', 'mmdet.CocoMetric'])
def test_the_truth_scores_100_and_a_shifted_one_does_not(metric):
    """Without a file of annotations; found objects that are ignored cost nothing."""
    kinds = ['bbox', 'segm'] + ['boundary'] * metric.startswith('mmsparse')
    data = dataset([dict(type='mmsparse.RenderScene'), PACK], test_mode=True)

    def scores(shift):
        evaluator = Evaluator(METRICS.build(dict(type=metric, metric=kinds)))
        evaluator.dataset_meta = data.metainfo
        for item in data:
            sample = item['data_samples']
            things, boxes = sample.instances, np.array([t['bbox'] for t in sample.instances])
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(boxes + shift), scores=torch.ones(len(things)),
                labels=torch.tensor([t['bbox_label'] for t in things]),
                masks=torch.from_numpy(
                    np.roll(masks_of(dict(instances=things)), (shift, shift), (1, 2))))
            evaluator.process([sample])
        figures = evaluator.evaluate(len(data))
        return [figures[f'coco/{kind}_mAP'] for kind in kinds]
    assert scores(0) == pytest.approx([1] * len(kinds))
    assert max(scores(3)) < 0.7


def test_a_subset_of_the_classes():
    data = dataset(metainfo=dict(classes=('car',)))
    label = render_label(0, SIZE)
    info = data.get_data_info(0)
    assert {thing['bbox_label'] for thing in info['instances']} == {0}
    np.testing.assert_array_equal(masks_of(info).any(0), label == CLASSES.index('car'))
    assert set(data.get_cat_ids(0)) == {0}


def test_scenes_without_objects_are_left_out_on_demand():
    """In training: at this size a scene rarely shows a car of 600 pixels."""
    kwargs = dict(length=12, min_area=600)
    full = dataset(**kwargs)
    kept = {info['img_id'] for info in (full.get_data_info(i) for i in range(len(full)))
            if not all(thing['ignore_flag'] for thing in info['instances'])}
    filtered = dataset(**kwargs, filter_cfg=dict(filter_empty_gt=True))
    assert {filtered.get_data_info(i)['img_id'] for i in range(len(filtered))} == kept
    assert 0 < len(kept) < 12 == len(full)
    assert len(dataset(**kwargs, filter_cfg=dict(filter_empty_gt=True), test_mode=True)) == 12


@pytest.mark.parametrize('kwargs, message', [
    (dict(length=0), 'SceneInstanceDataset.length must be a positive integer, got 0'),
    (dict(size=(0, 5)), r'size of a scene must be \(H, W\)'),
    (dict(min_area=0), 'SceneInstanceDataset.min_area must be a positive integer .* got 0'),
    (dict(metainfo=dict(classes=('car', 'road'))), "has the classes .* got 'road'"),
    (dict(filter_cfg=dict(min_size=32)), "takes 'filter_empty_gt', got 'min_size'"),
])
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        dataset(**kwargs)
