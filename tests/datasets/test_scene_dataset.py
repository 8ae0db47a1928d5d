"""Scenes as an mmseg dataset: stock transforms, metric and file access work on it."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.fileio import get
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, TRANSFORMS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from mmsparse.datasets.scenes import render_scene

SIZE = (96, 160)


@pytest.fixture(autouse=True)
def mmseg_scope():
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')


def dataset(pipeline=(), **kwargs):
    cfg = dict(type='mmsparse.SceneDataset', length=3, size=SIZE, pipeline=list(pipeline))
    return DATASETS.build(cfg | kwargs)


TRAIN = [
    dict(type='mmsparse.RenderScene'),
    dict(type='RandomResize', scale=(160, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
LOW = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=0.5),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


def test_stock_training_pipeline():
    item = dataset(TRAIN)[0]
    assert item['inputs'].dtype == torch.uint8
    assert item['inputs'].shape[1:] == item['data_samples'].gt_sem_seg.shape


def test_low_resolution_pipeline_keeps_the_ground_truth_at_full_size():
    item = dataset(LOW, first_index=7, seed=2)[1]
    assert item['inputs'].shape == (3, 48, 80)
    sample = item['data_samples']
    assert tuple(sample.ori_shape) == SIZE and tuple(sample.img_shape) == (48, 80)
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0], render_scene(8, SIZE, 2)[1])


def test_stock_metric_gives_100_for_the_truth():
    data = dataset(LOW)
    evaluator = Evaluator(dict(type='IoUMetric', iou_metrics=['mIoU']))
    evaluator.dataset_meta = data.metainfo
    for item in data:
        truth = item['data_samples']
        sample = SegDataSample(pred_sem_seg=PixelData(data=truth.gt_sem_seg.data.clone()),
                               gt_sem_seg=truth.gt_sem_seg, metainfo=truth.metainfo)
        evaluator.process([sample])
    assert evaluator.evaluate(len(data))['mIoU'] == 100


def test_test_time_augmentation_pipeline():
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='TestTimeAug', transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.5, 1.0)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0., 1.)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')]]),
    ]
    item = dataset(pipeline)[0]
    assert [tuple(i.shape[1:]) for i in item['inputs']] == [(48, 80), (48, 80), SIZE, SIZE]


def test_stock_loading_transforms_read_the_paths():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='PackSegInputs')]
    read, rendered = dataset(pipeline)[2], dataset(TRAIN[:1] + TRAIN[-1:])[2]
    assert torch.equal(read['inputs'], rendered['inputs'])
    assert torch.equal(read['data_samples'].gt_sem_seg.data,
                       rendered['data_samples'].gt_sem_seg.data)


def test_a_path_that_names_no_scene():
    with pytest.raises(FileNotFoundError, match='scene://seed0/1024x2048/000000.png'):
        get('scene://nowhere.png')


def test_a_subset_of_the_classes_as_in_mmseg():
    data = dataset(TRAIN[:1], metainfo=dict(classes=('sky', 'road')))
    label = render_scene(0, SIZE)[1]
    expected = np.full_like(label, 255)
    expected[label == 4], expected[label == 0] = 0, 1
    np.testing.assert_array_equal(data[0]['gt_seg_map'], expected)


def test_reduce_zero_label_as_in_mmseg():
    label = render_scene(0, SIZE)[1].astype(int)
    reduced = dataset(TRAIN[:1], reduce_zero_label=True)[0]['gt_seg_map']
    np.testing.assert_array_equal(reduced, np.where(label == 0, 255, label - 1))


def test_cache_returns_equal_but_separate_arrays():
    transform = TRANSFORMS.build(dict(type='mmsparse.RenderScene', cache=1))
    data = dataset()

    def load(index):
        return transform(data.get_data_info(index))

    first = load(0)
    first['img'][:] = 0  # what an in-place transform does
    first['gt_seg_map'][:] = 0
    for index in (0, 1, 0):  # kept, pushed out, rendered again
        again = load(index)
        image, label = render_scene(index, SIZE)
        np.testing.assert_array_equal(again['img'], image)
        np.testing.assert_array_equal(again['gt_seg_map'], label)


@pytest.mark.parametrize('kwargs, message', [
    (dict(length=0), 'SceneDataset.length must be a positive integer, got 0'),
    (dict(size=(0, 5)), r'size of a scene must be \(H, W\)'),
    (dict(seed=-1), 'seed of a scene must be >= 0'),
])
def test_bad_dataset_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        dataset(**kwargs)


@pytest.mark.parametrize('kwargs, message', [
    (dict(cache=-1), 'RenderScene.cache must be >= 0'),
])
def test_bad_transform_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='mmsparse.RenderScene', **kwargs))


def test_rendering_something_that_is_no_scene():
    transform = TRANSFORMS.build(dict(type='mmsparse.RenderScene'))
    with pytest.raises(KeyError, match='SceneDataset'):
        transform(dict(img_path='street.png'))
