"""HRF: photographs by their numbers. No real data needed."""
import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from mmsparse.datasets import HRFDataset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for number in range(6, 16):
        for kind in ('h', 'g', 'dr'):
            for name, shape in ((f'images/{number:02}_{kind}.jpg', (24, 36, 3)),
                                (f'labels/{number:02}_{kind}.png', (24, 36))):
                path = tmp_path / 'hrf' / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full(shape, number % 3, np.uint8))
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    return tmp_path / 'hrf'


@pytest.mark.parametrize(('split', 'numbers'), [('train', range(6, 14)), ('val', (14, 15))])
def test_splits_share_no_number(root, folder, split, numbers):
    cfg = Config.fromfile(root / 'configs/_base_/datasets/hrf-2336x3504.py')
    dataset = cfg[f'{split}_dataloader'].dataset
    dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                        dict(type='PackSegInputs')]
    data = DATASETS.build(dataset)
    assert len(data) == 3 * len(numbers)
    found = {sample['data_samples'].img_path.rsplit('/', 1)[1].split('_')[0] for sample in data}
    assert found == {f'{n:02}' for n in numbers}
    for sample in data:
        number = int(sample['data_samples'].img_path.rsplit('/', 1)[1].split('_')[0])
        assert (sample['data_samples'].gt_sem_seg.data == number % 3).all()


def test_all_numbers_by_default(folder):
    prefix = dict(img_path='images', seg_map_path='labels')
    assert len(HRFDataset(data_root=str(folder), data_prefix=prefix, pipeline=[])) == 30


def test_a_number_that_is_not_there_is_named(folder):
    prefix = dict(img_path='images', seg_map_path='labels')
    with pytest.raises(FileNotFoundError, match=r'numbers \[3, 16\]; there are those of \[6, 7'):
        HRFDataset(data_root=str(folder), data_prefix=prefix, pipeline=[], numbers=(3, 6, 16))
