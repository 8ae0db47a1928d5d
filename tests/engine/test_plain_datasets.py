"""Datasets out of their wrappers, in every tool that looks into a config for them."""
import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config, ConfigDict
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import MultiImageMixDataset
from mmseg.utils import register_all_modules

from mmsparse import apis
from mmsparse.datasets import SceneDataset
from mmsparse.engine.plain_datasets import plain_datasets
from tests.examples import examples
from tests.models.tiny import refine_cfg

PIPELINE = [dict(type='mmsparse.RenderScene'), dict(type='PackSegInputs')]
WRAPPERS = dict(
    repeat=lambda inner: dict(type=RepeatDataset, dataset=inner, times=2),
    balanced=lambda inner: dict(type=ClassBalancedDataset, dataset=inner, oversample_thr=0.1),
    mixed=lambda inner: dict(type=MultiImageMixDataset, dataset=inner, pipeline=[]),
    one=lambda inner: dict(type=ConcatDataset, datasets=[inner]),
    two=lambda *inner: dict(type=ConcatDataset, datasets=list(inner)))


def scenes(length=3, **kwargs):
    return dict(type='mmsparse.SceneDataset', length=length, size=(32, 64),
                serialize_data=False, pipeline=[dict(step) for step in PIPELINE], **kwargs)


@st.composite
def trees(draw):
    """A nest of wrappers, and the plain datasets that were put into it, in order."""
    kind = draw(st.sampled_from([None, *WRAPPERS]))
    if kind is None:
        leaf = ConfigDict(type='Plain', number=draw(st.integers(0, 9)), pipeline=[])
        return leaf, [leaf]
    parts = [draw(trees()) for _ in range(2 if kind == 'two' else 1)]
    return ConfigDict(WRAPPERS[kind](*(tree for tree, _ in parts))), [
        leaf for _, leaves in parts for leaf in leaves]


@examples(50)
@given(trees())
def test_any_nest_of_wrappers_holds_what_was_put_into_it(drawn):
    tree, leaves = drawn
    found = plain_datasets(tree)
    assert found == leaves
    found[-1].pipeline = ['mine']  # they are the config's own, to be changed in place
    assert str(tree).count('mine') == 1


def config(dataset, model=None):
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    return Config(dict(
        default_scope='mmseg', model=model or refine_cfg(num_classes=len(
            SceneDataset.METAINFO['classes'])),
        train_dataloader=dict(dataset=dataset), val_dataloader=dict(
            num_workers=0, dataset=scenes(), collate_fn=dict(type='pseudo_collate')),
        test_dataloader=dict(dataset=dataset), test_evaluator=[dict(type='IoUMetric')],
        tta_model=dict(type='SegTTAModel'), tta_pipeline=[dict(type='Tta')]))


WRAPPED = {name: wrap(*[scenes() for _ in range(2 if name == 'two' else 1)])
           for name, wrap in WRAPPERS.items()} | dict(
    plain=scenes(), nested=WRAPPERS['two'](WRAPPERS['repeat'](scenes()), scenes(length=2)))
COUNTS = dict(two=6, nested=5)


@pytest.fixture
def tool(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / 'tools'))
    names = ('calibrate', 'test', 'command_line')
    yield lambda name: importlib.import_module(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize('name', WRAPPED)
def test_calibrate_takes_every_image_once(tool, name):
    loader = tool('calibrate').build_loader(config(WRAPPED[name]), 'train', None)
    paths = [batch['data_samples'][0].ori_shape for batch in loader]
    assert len(paths) == COUNTS.get(name, 3) and set(paths) == {(32, 64)}


@pytest.mark.parametrize('name', WRAPPED)
def test_calibrate_takes_the_pipeline_of_a_wrapped_validation_set(tool, name):
    cfg = config(scenes())
    cfg.val_dataloader.dataset = WRAPPED[name]
    assert len(tool('calibrate').build_loader(cfg, 'val', None)) == COUNTS.get(name, 3)


@pytest.mark.parametrize('name', WRAPPED)
def test_calibrate_knows_training_images_in_wrappers(tool, name):
    cfg = config(WRAPPED[name])
    assert tool('calibrate').is_training_data(cfg, 'val')
    cfg.val_dataloader.dataset = scenes(length=7)
    assert not tool('calibrate').is_training_data(cfg, 'val')


def test_calibrate_joins_no_datasets_of_different_classes(tool):
    mixed = WRAPPERS['two'](scenes(), scenes(metainfo=dict(classes=('road',))))
    with pytest.raises(SystemExit, match='train_dataloader joins datasets of different classes'):
        tool('calibrate').build_loader(config(mixed), 'train', None)


@pytest.mark.parametrize('name', WRAPPED)
def test_test_time_augmentation_reaches_every_dataset(tool, name):
    cfg = config(WRAPPED[name])
    tool('test').augment(cfg)
    for dataset in plain_datasets(cfg.test_dataloader.dataset):
        assert dataset.pipeline == [dict(type='Tta')]


@pytest.mark.parametrize('name', WRAPPED)
def test_classes_come_out_of_wrappers(name):
    model = apis.init_model(config(WRAPPED[name]), device='cpu')
    assert model.dataset_meta['classes'] == SceneDataset.METAINFO['classes']
    assert apis.tested_dataset(model.cfg).pipeline[0].type == 'mmsparse.RenderScene'


def test_test_sets_that_prepare_images_differently_are_refused():
    other = scenes()
    other['pipeline'].insert(1, dict(type='Resize', scale=(64, 32)))
    with pytest.raises(ValueError, match='pipelines that differ in more than loading'):
        apis.tested_dataset(config(WRAPPERS['two'](scenes(), other)))
    other['pipeline'] = [*PIPELINE[:1], dict(type='LoadAnnotations'), *PIPELINE[1:]]
    assert apis.tested_dataset(config(WRAPPERS['two'](scenes(), other))).pipeline == PIPELINE
