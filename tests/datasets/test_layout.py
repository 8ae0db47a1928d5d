"""Every dataset on disk: loads through its base config; each missing thing is named. Tiny trees."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules
from PIL import Image

import mmsparse.datasets

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/_base_/datasets'
# inherits its data settings from mmseg, as all configs on Cityscapes do
CITYSCAPES = '../../sparserefine/sparserefine_fcn-hr48_8xb4-46k_cityscapes-1024x2048'


class Layout(NamedTuple):
    """One dataset: where its files go, and what comes out of its config."""

    config: str
    type: str
    root: str
    image: str  # with {split}
    label: str
    size: tuple[int, int]  # (H, W) of the tiny pictures: the real ones' aspect ratio
    classes: int
    crop: tuple[int, int]
    splits: tuple[str, ...] = ('train', 'val')
    seen: tuple[int, int] | None = None  # size in testing, if not native


LAYOUTS = [
    Layout(CITYSCAPES, 'CityscapesDataset', 'cityscapes',
           'leftImg8bit/{split}/ulm/ulm_01_leftImg8bit.png',
           'gtFine/{split}/ulm/ulm_01_gtFine_labelTrainIds.png', (16, 32), 19, (512, 1024)),
    Layout('bdd100k-720x1280', 'BDD100KDataset', 'bdd100k', 'images/10k/{split}/a-b.jpg',
           'labels/sem_seg/masks/{split}/a-b.png', (18, 32), 19, (352, 640)),
    Layout('voc12aug-512x512', 'PascalVOCDataset', 'VOCdevkit/VOC2012', 'JPEGImages/{split}_1.jpg',
           'SegmentationClass/{split}_1.png', (24, 32), 21, (512, 512), seen=(512, 683)),
    Layout('deepglobe-2448x2448', 'DeepGlobeLandCoverDataset', 'deepglobe', 'images/{split}/1.jpg',
           'labels/{split}/1.png', (16, 16), 6, (1024, 1024)),
    Layout('isic-1024x1024', 'ISICDataset', 'isic', 'images/{split}/ISIC_1.jpg',
           'labels/{split}/ISIC_1.png', (24, 32), 2, (512, 512), splits=('train', 'val', 'test'),
           seen=(1024, 1024)),
    Layout('camvid-720x960', 'CamVidDataset', 'camvid', 'images/{split}/1.jpg',
           'labels/{split}/1.png', (300, 400), 11, (256, 256)),
]
every_layout = pytest.mark.parametrize('layout', LAYOUTS, ids=lambda layout: layout.root)
CITY, _, VOC, DEEPGLOBE, *_ = LAYOUTS


def dataset_class(layout):
    return getattr(mmsparse.datasets, layout.type)


def label_of(layout):
    """All classes and 255, in stripes."""
    height, width = layout.size
    row = np.linspace(0, layout.classes - 1e-3, width).astype(np.uint8)
    label = np.tile(row, (height, 1))
    label[0] = 255
    return label


def write(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:  # as the masks of VOC are stored
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    picture.save(path)


def make_tree(folder, layout):
    """A tiny picture and its label in every split; MMSPARSE_DATA has to be ``folder``."""
    root = folder / layout.root
    for split in layout.splits:
        write(root / layout.image.format(split=split), np.full((*layout.size, 3), 90, np.uint8))
        write(root / layout.label.format(split=split), label_of(layout))
    if layout is VOC:
        palette = dataset_class(layout).METAINFO['palette']
        write(root / 'JPEGImages/aug_1.jpg', np.full((*layout.size, 3), 90, np.uint8))
        write(root / 'SegmentationClass/val_1.png', label_of(layout), palette)
        write(root / 'SegmentationClassAug/aug_1.png', label_of(layout))
        for split in ('train', 'val', 'aug'):
            path = root / f'ImageSets/Segmentation/{split}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'{split}_1\n')
    return root


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    return tmp_path


def build(layout, split='val', **changes):
    cfg = Config.fromfile(CONFIGS / f'{layout.config}.py')
    return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, **changes))


@every_layout
@pytest.mark.parametrize('split', ['val', 'test'])
def test_test_pipeline_keeps_the_label(data, layout, split):
    make_tree(data, layout)
    dataset = build(layout, split)
    assert type(dataset) is dataset_class(layout)
    item, = dataset
    assert item['inputs'].shape == (3, *(layout.seen or layout.size))
    assert np.array_equal(item['data_samples'].gt_sem_seg.data[0].numpy(), label_of(layout))
    assert item['data_samples'].ori_shape == layout.size


@every_layout
def test_train_pipeline_crops(data, layout):
    make_tree(data, layout)
    dataset = build(layout, 'train')
    assert len(dataset) == (2 if layout is VOC else 1)  # VOC: train and aug
    for item in dataset:
        label = item['data_samples'].gt_sem_seg.data[0]
        assert item['inputs'].shape[1:] == label.shape
        if layout is VOC:  # padded later, by the data preprocessor
            assert max(label.shape) <= 512
        else:
            assert label.shape == layout.crop
        assert set(label.unique().tolist()) <= {*range(layout.classes), 255}


@every_layout
def test_smallest_ratio_fills_the_crop(layout):
    """Padding, if it can happen at all, is left to VOC, whose pictures are small."""
    cfg = Config.fromfile(CONFIGS / f'{layout.config}.py')
    assert all(side % 32 == 0 for side in cfg.crop_size) and cfg.crop_size == layout.crop
    resize = [step for step in cfg.train_pipeline if step.type == 'RandomResize']
    if resize and layout is not VOC:
        width, height = resize[0].scale
        low, high = resize[0].ratio_range
        assert (low, high) == (0.5, 2.0)
        assert height * low >= cfg.crop_size[0] and width * low >= cfg.crop_size[1]


@every_layout
def test_augmented_pictures_share_one_label(data, layout):
    make_tree(data, layout)
    cfg = Config.fromfile(CONFIGS / f'{layout.config}.py')
    item, = build(layout, pipeline=cfg.tta_pipeline)
    assert len(item['inputs']) in (6, 12)  # sizes x flips, ours and stock
    for sample in item['data_samples']:
        assert sample.gt_sem_seg.shape == layout.size


@every_layout
def test_palette_and_classes(layout):
    meta = dataset_class(layout).METAINFO
    assert len(meta['classes']) == len(set(meta['classes'])) == layout.classes
    assert len(meta['palette']) == layout.classes
    assert set(meta.get('small_classes', ())) <= set(meta['classes'])


def failure(layout, **changes):
    """The error of loading, which always names dataset, variable and tree."""
    with pytest.raises(FileNotFoundError) as error:
        build(layout, **changes)
    message = str(error.value)
    assert message.startswith(f'{layout.type}: ')
    assert 'MMSPARSE_DATA' in message
    assert message.endswith(dataset_class(layout).TREE)
    return message


@every_layout
def test_nothing_there(data, layout):
    root = data / layout.root
    folder = root / layout.image.split('/{split}')[0] if layout is not VOC else root / 'JPEGImages'
    assert f'no folder {folder}' in failure(layout)


@every_layout
def test_no_folder_of_labels(data, layout):
    root = make_tree(data, layout)
    folder = (root / layout.label.format(split='val')).parent
    if layout is CITY:
        folder = folder.parent
    shutil.rmtree(folder)
    assert f'no folder {folder}. ' in failure(layout)


@every_layout
def test_images_of_another_kind(data, layout):
    root = make_tree(data, layout)
    image = root / layout.image.format(split='val')
    for path in image.parent.iterdir():
        path.rename(path.with_name(path.stem[:3] + '.tiff'))
    message = failure(layout)
    assert "holds no file that ends in '" in message
    assert re.search(r'but others, such as \S+\.tiff\.', message)


@every_layout
def test_labels_of_another_kind(data, layout):
    """As in Cityscapes before its labels are converted."""
    root = make_tree(data, layout)
    label = root / layout.label.format(split='val')
    for path in label.parent.iterdir():
        path.rename(path.with_name('polygons.json'))
    message = failure(layout)
    suffix = '_gtFine_labelTrainIds.png' if layout is CITY else '.png'
    assert f"holds no file that ends in '{suffix}'" in message
    assert 'polygons.json' in message


def test_empty_folder(data):
    root = make_tree(data, DEEPGLOBE)
    (root / 'images/val/1.jpg').unlink()
    assert f"{root / 'images/val'} holds no file that ends in '.jpg': it is empty. " in failure(
        DEEPGLOBE)


@every_layout
def test_labels_missing(data, layout):
    """How many of how many, and the first three."""
    root = make_tree(data, layout)
    image = root / layout.image.format(split='val')
    old, names = ('ulm_01' if layout is CITY else image.stem), []
    for number in range(4):
        names.append(f'x{number}' + ('_leftImg8bit' if layout is CITY else ''))
        shutil.copyfile(image, image.with_name(names[-1] + image.suffix))
    if layout is VOC:
        lines = [old, *names]
        (root / 'ImageSets/Segmentation/val.txt').write_text('\n'.join(lines) + '\n')
    message = failure(layout)
    assert '4 of 5 label files are not in ' in message
    assert re.search(r'x0\S*, \S*x1\S*, \S*x2\S*, \.\.\.\. ', message)


def test_voc_lists_images_that_are_missing(data):
    root = make_tree(data, VOC)
    (root / 'ImageSets/Segmentation/val.txt').write_text('val_1\n2007_000032\n')
    assert f'1 of 2 image files are not in {root / "JPEGImages"}: 2007_000032.jpg. ' in failure(VOC)


def test_voc_without_split_file(data):
    path = make_tree(data, VOC) / 'ImageSets/Segmentation/val.txt'
    path.write_text('')
    assert f'{path} is empty' in failure(VOC)
    path.unlink()
    assert f'no split file {path}. ' in failure(VOC)


@every_layout
def test_lazy_init_checks_when_filled(data, layout):
    dataset = build(layout, lazy_init=True)
    assert len(dataset.metainfo['classes']) == layout.classes
    with pytest.raises(FileNotFoundError, match=layout.type):
        dataset.full_init()
    make_tree(data, layout)
    dataset.full_init()
    assert len(dataset) == 1


@pytest.mark.parametrize('prefix', [dict(), dict(seg_map_path='')], ids=['unnamed', 'empty'])
def test_pictures_without_labels(data, prefix):
    """Where the config names no folder of labels, none is asked for."""
    root = make_tree(data, DEEPGLOBE)
    shutil.rmtree(root / 'labels')
    item, = build(DEEPGLOBE, data_prefix=dict(img_path='images/val', **prefix), test_mode=True,
                  pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')])
    assert item['inputs'].shape == (3, *DEEPGLOBE.size)


def test_16_bits_per_channel(data):
    """Refused before training: the stock loader cuts them to 8 without a word."""
    root = make_tree(data, CITY)
    image = root / CITY.image.format(split='val')
    assert cv2.imwrite(str(image), np.full((*CITY.size, 3), 4095, np.uint16))
    load = dict(type='LoadImageFromFile')
    for pipeline in ([load], [dict(load, color_type='color_ignore_orientation')]):
        with pytest.raises(ValueError, match=rf'{image.name} holds uint16 numbers per channel'):
            build(CITY, pipeline=pipeline)
    for pipeline in ([], [dict(load, color_type='unchanged')]):  # who asks for them gets them
        assert len(build(CITY, pipeline=pipeline)) == 1


def test_absolute_prefixes_and_relative_root(data, monkeypatch):
    root = make_tree(data, DEEPGLOBE)
    full = dict(img_path=str(root / 'images/val'), seg_map_path=str(root / 'labels/val'))
    assert len(build(DEEPGLOBE, data_root=None, data_prefix=full)) == 1
    monkeypatch.chdir(data)
    assert len(build(DEEPGLOBE, data_root='deepglobe')) == 1
    shutil.rmtree(root / 'labels')
    assert f'no folder {root / "labels/val"}' in failure(DEEPGLOBE, data_root='deepglobe')


def test_no_prefix_at_all(data):
    with pytest.raises(ValueError, match='DeepGlobe.*: data_prefix names no img_path'):
        build(DEEPGLOBE, data_root=None, data_prefix=dict())


def test_other_backends_are_asked(data):
    make_tree(data, DEEPGLOBE)
    assert len(build(DEEPGLOBE, backend_args=dict(backend='local'))) == 1


def test_unknown_argument_is_refused(data):
    make_tree(data, DEEPGLOBE)
    with pytest.raises(TypeError, match='image_suffix'):
        build(DEEPGLOBE, image_suffix='.jpg')


def test_page_shows_the_trees():
    page = (ROOT / 'docs/datasets.md').read_text()
    shown = re.findall(r'^```text\n(.*?)\n```$', page, re.M | re.S)
    classes = [each for each in map(mmsparse.datasets.__getattr__, mmsparse.datasets.__all__)
               if isinstance(each, type) and 'TREE' in vars(each)]
    assert {dataset_class(layout) for layout in LAYOUTS} < set(classes)
    assert sorted(shown) == sorted(dataset.TREE for dataset in classes)


@every_layout
def test_page_names_config_and_classes(layout):
    page = ' '.join((ROOT / 'docs/datasets.md').read_text().split())
    config = ('stock, as in `configs/_base_/low_res_cityscapes.py`' if layout is CITY else
              f'`configs/_base_/datasets/{layout.config}.py`')
    assert f'`mmsparse.{layout.type}` | {config}' in page
    assert f'Classes: {", ".join(dataset_class(layout).METAINFO["classes"])}.' in page or (
        layout.root == 'bdd100k' and 'Classes: those of Cityscapes.' in page)
