"""Which label belongs to a picture, and what its numbers mean, by the config's test set."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from mmsparse.engine.label_files import find_label, read_label


def config_of(dataset, pipeline=(), **settings):
    return Config(dict(test_dataloader=dict(dataset=dict(
        type=dataset, pipeline=list(pipeline), **settings))))


@pytest.mark.parametrize('dataset, picture, label', [
    ('CityscapesDataset', 'x_leftImg8bit.png', 'x_gtFine_labelTrainIds.png'),
    ('ADE20KDataset', 'x.jpg', 'x.png'),
    ('iSAIDDataset', 'x.png', 'x_instance_color_RGB.png'),
    ('DRIVEDataset', 'x.jpg', 'x.png'),  # no name of that data set: by its stem
])
def test_a_label_has_the_name_that_the_test_set_gives_it(tmp_path, dataset, picture, label):
    config, picture = config_of(f'mmseg.{dataset}'), Path('pictures', picture)
    with pytest.raises(FileNotFoundError, match=f'holds no label of {picture}: .*{label}'):
        find_label(config, tmp_path, picture)
    (tmp_path / label).touch()
    assert find_label(config, tmp_path, picture) == tmp_path / label
    assert find_label(config, tmp_path / 'one.png', picture) == tmp_path / 'one.png'


def test_a_suffix_in_the_config_counts(tmp_path):
    config = config_of('mmseg.CityscapesDataset', img_suffix='.jpg', seg_map_suffix='_mine.png')
    for name in ('x.png', 'x_mine.png'):
        (tmp_path / name).touch()
    assert find_label(config, tmp_path, Path('x.jpg')) == tmp_path / 'x_mine.png'
    assert find_label(config, tmp_path, Path('x.jpeg')) == tmp_path / 'x.png'


@pytest.mark.parametrize('dataset, settings', [
    ('mmseg.ADE20KDataset', {}),  # its own default
    ('mmseg.BaseSegDataset', dict(reduce_zero_label=True)),
    ('mmseg.CityscapesDataset', dict(metainfo=dict(classes=('car', 'road', 'sky')))),
    ('mmsparse.CamVidDataset', {}),
])
@pytest.mark.parametrize('step', [[], [dict(type='LoadAnnotations')]])
def test_numbers_change_as_in_the_data_set_itself(tmp_path, dataset, settings, step):
    """The oracle is mmseg's data set of a folder with that one label."""
    (tmp_path / 'labels').mkdir()
    values = np.random.default_rng(0).integers(0, 11, (9, 12), dtype=np.uint8)
    values[0] = 255
    for name in ('x_gtFine_labelTrainIds.png', 'x.png', 'x_L.png'):
        cv2.imwrite(str(tmp_path / 'labels' / name), values)
    built = DATASETS.build(dict(
        type=dataset, pipeline=[dict(type='mmseg.LoadAnnotations')], lazy_init=True, **settings))
    meta = dict(seg_map_path=str(tmp_path / 'labels' / 'x.png'), seg_fields=[],
                label_map=built.label_map, reduce_zero_label=built.reduce_zero_label)
    expected = built.pipeline(meta)['gt_seg_map']
    with DefaultScope.overwrite_default_scope('mmseg'):
        found = read_label(config_of(dataset, pipeline=step, **settings),
                           tmp_path / 'labels' / 'x.png', (9, 12), 150, 255)
    assert (found == expected).all() and found.dtype == np.int64
    assert settings == {} and dataset != 'mmseg.ADE20KDataset' or (found != values).any()


def test_what_is_no_label(tmp_path):
    path = tmp_path / 'x.png'
    path.write_bytes(b'no picture')
    with pytest.raises(OSError, match='identify image'):
        read_label(config_of('mmseg.BaseSegDataset'), path, (9, 12), 5, 255)
    cv2.imwrite(str(path), np.full((9, 12), 5, np.uint8))
    with pytest.raises(ValueError, match='x.png: holds 5; classes are 0 to 4'):
        read_label(config_of('mmseg.BaseSegDataset'), path, (9, 12), 5, 255)
    with pytest.raises(ValueError, match=r'x.png: .* has \[9, 12\] pixels, its picture \[9, 9\]'):
        read_label(config_of('mmseg.BaseSegDataset'), path, (9, 9), 6, 255)
