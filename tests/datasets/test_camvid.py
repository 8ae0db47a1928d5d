"""CamVid: found through one variable, a missing folder is explained. No real data needed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

CONFIG = Path(__file__).parents[2] / 'configs/_base_/datasets/camvid-720x960.py'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two tiny images in CamVid's tree."""
    for split in ('train', 'val'):
        for kind, suffix, shape in (('images', 'jpg', (30, 40, 3)), ('labels', 'png', (30, 40))):
            folder = tmp_path / 'camvid' / kind / split
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / f'0001.{suffix}'), np.full(shape, 7, np.uint8))
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    return tmp_path


def build(split):
    dataset = Config.fromfile(CONFIG)[f'{split}_dataloader'].dataset
    dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                        dict(type='PackSegInputs')]
    return DATASETS.build(dataset)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_loads_images_and_labels(root, split):
    data = build(split)
    assert len(data) == 1 and len(data.metainfo['classes']) == 11
    item = data[0]
    assert item['inputs'].shape == (3, 30, 40)
    assert (item['data_samples'].gt_sem_seg.data == 7).all()


def test_missing_folder_names_tree_and_variable(root, monkeypatch):
    monkeypatch.setenv('MMSPARSE_DATA', str(root / 'elsewhere'))
    with pytest.raises(FileNotFoundError) as error:
        build('train')
    for part in (str(root / 'elsewhere'), 'MMSPARSE_DATA', 'images/train', 'labels/val'):
        assert part in str(error.value)


def test_small_classes_are_classes():
    from mmsparse.datasets import CamVidDataset, SceneDataset
    for data in (CamVidDataset, SceneDataset):
        assert set(data.METAINFO['small_classes']) <= set(data.METAINFO['classes'])
        assert len(data.METAINFO['palette']) == len(data.METAINFO['classes'])
