"""What the forms of output hold, read by OpenCV and pycocotools; on predictions made by hand."""
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from pycocotools import mask as coco
from pycocotools.coco import COCO

from mmsparse.engine.formats import FORMATS
from mmsparse.engine.prediction import INSTANCE_OFFSET, Prediction, WrongModelError
from mmsparse.rle import Patch
from mmsparse.visualization import Shape, paint_over, paint_shapes

SIZE = (40, 56)
RNG = np.random.default_rng(0)
IMAGE = np.kron(RNG.integers(0, 256, (5, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)
CLASSES = np.kron(RNG.integers(0, 4, (5, 7)), np.ones((8, 8), int))  # class 4 is nowhere
MASKS = torch.from_numpy(RNG.random((3, *SIZE)) < [[[0.3]], [[0.5]], [[0.0]]])  # the last is empty
BOXES = torch.tensor([[1., 2, 30, 20], [5, 5, 56, 40], [0, 0, 1, 1]])


def model(count=5, palette=True):
    classes = tuple(f'class {k}' for k in range(count))
    colors = dict(palette=[[40 * k % 256, k % 256, 255 - k % 256] for k in range(count)])
    return SimpleNamespace(dataset_meta=dict(classes=classes) | (colors if palette else {}))


def segmented(classes=CLASSES, name='street/1.jpg'):
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(classes)[None]))
    return Prediction(Path('/data') / name, Path(name), IMAGE, sample)


def detected(masks=MASKS, labels=(1, 4, 0), **fields):
    found = InstanceData(bboxes=BOXES, labels=torch.tensor(labels),
                         scores=torch.tensor([0.75, 0.5, 0.25]))
    if masks is not None:
        found.masks = masks
    sample = DetDataSample(metainfo=dict(ori_shape=SIZE), pred_instances=found, **fields)
    return Prediction(Path('/data/2.png'), Path('2.png'), IMAGE, sample)


def panoptic(count=5):
    """Two objects of class 1, class 3, and pixels without a class."""
    segments = np.full(SIZE, count)
    segments[:10], segments[10:20] = 1 + INSTANCE_OFFSET, 1 + 2 * INSTANCE_OFFSET
    segments[20:25] = 3
    field = PixelData(sem_seg=torch.from_numpy(segments)[None])
    return segments, detected(pred_panoptic_seg=field)


def codes_of(masks):
    return [coco.encode(np.asfortranarray(mask.numpy(), np.uint8)) for mask in masks]


def read(content, flag=cv2.IMREAD_UNCHANGED):
    return cv2.imdecode(np.frombuffer(content, np.uint8), flag)


def load(parts, form, tmp_path):
    """The document as pycocotools reads it."""
    (tmp_path / 'coco.json').write_bytes(form.join(parts))
    return COCO(str(tmp_path / 'coco.json'))


# ---- labels ----


@pytest.mark.parametrize(('count', 'dtype'), [(5, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_labels_are_class_numbers(count, dtype):
    classes = CLASSES.copy()
    classes[0, 0] = count - 1
    found = read(FORMATS['labels'](model(count)).encode(segmented(classes)))
    assert found.dtype == dtype and (found == classes).all()


def test_labels_of_a_panoptic_model():
    segments, prediction = panoptic()
    found = read(FORMATS['labels'](model()).encode(prediction))
    assert (found == np.where(segments == 5, 255, segments % INSTANCE_OFFSET)).all()


@pytest.mark.parametrize('key', ['labels', 'overlay', 'coco'])
def test_a_class_without_a_name_is_refused(key):
    with pytest.raises(WrongModelError, match='the model gives class 3, but .* name 3 classes'):
        FORMATS[key](model(3)).encode(segmented())
    if key == 'coco':
        with pytest.raises(WrongModelError, match='the model gives class 4, but .* name 4 classes'):
            FORMATS[key](model(4)).encode(detected())


def test_labels_are_not_for_objects():
    with pytest.raises(WrongModelError, match='finds objects, which may overlap'):
        FORMATS['labels'](model()).encode(detected())


@pytest.mark.parametrize('key', FORMATS)
def test_a_model_without_names_is_refused(key):
    with pytest.raises(ValueError, match='names the classes'):
        FORMATS[key](SimpleNamespace(dataset_meta={}))


# ---- overlay, panels ----


def crisp(picture):
    """What is left of it behind a JPEG."""
    return read(cv2.imencode('.jpg', picture)[1].tobytes())


def test_an_overlay_is_drawn_in_the_colors_of_the_classes():
    form = FORMATS['overlay'](model())
    names = model().dataset_meta['classes']
    expected = paint_over(IMAGE, CLASSES, names, model().dataset_meta['palette'])
    assert (read(form.encode(segmented())) == crisp(expected)).all()


def test_colors_that_no_data_set_names_are_fixed():
    palettes = [FORMATS['overlay'](model(palette=False)).palette for _ in range(2)]
    assert palettes[0] == palettes[1] and len({*map(tuple, palettes[0])}) == 5


@pytest.mark.parametrize('kind', ['masks', 'codes', 'boxes'])
def test_an_overlay_of_objects(kind):
    """Likely ones on top, and none for an empty mask."""
    form = FORMATS['overlay'](model())
    given = dict(masks=MASKS, codes=codes_of(MASKS), boxes=None)[kind]
    palette = model().dataset_meta['palette']
    shapes = [Shape(None if kind == 'boxes' else Patch(MASKS[i].numpy(), 0, 0),
                    (x, y, right - x, bottom - y), f'class {label} {score:.2f}', palette[label])
              for i, (label, score, (x, y, right, bottom)) in enumerate(zip(
                  (1, 4, 0), (0.75, 0.5, 0.25), BOXES.tolist(), strict=True))]
    expected = paint_shapes(IMAGE, shapes[::-1] if kind == 'boxes' else shapes[1::-1])
    assert (read(form.encode(detected(given))) == crisp(expected)).all()


def test_an_overlay_of_segments_and_of_nothing():
    form = FORMATS['overlay'](model())
    segments, prediction = panoptic()
    found = read(form.encode(prediction)).astype(int)
    assert np.abs(found - crisp(IMAGE))[30:].mean() < 5 < np.abs(found - crisp(IMAGE))[:25].mean()
    objects = prediction.sample.pred_instances[torch.zeros(3, dtype=torch.bool)]
    nothing = Prediction(Path('2'), Path('2'), IMAGE, DetDataSample(pred_instances=objects))
    assert (read(form.encode(nothing)) == crisp(IMAGE)).all()


def test_panels_are_for_refining_models():
    with pytest.raises(ValueError, match="'panels' is for SparseRefineSegmentor, got SimpleName"):
        FORMATS['panels'](model())


# ---- COCO ----


def test_coco_has_each_class_of_a_picture_once(tmp_path):
    form = FORMATS['coco'](model())
    other = np.full(SIZE, 4)
    data = load([form.encode(segmented()), form.encode(segmented(other, 'street/2.png'))], form,
                tmp_path)
    assert [c['name'] for c in data.loadCats(data.getCatIds())] == list(model().dataset_meta[
        'classes'])
    assert [(i['id'], i['file_name'], i['height'], i['width']) for i in data.loadImgs(
        data.getImgIds())] == [(1, 'street/1.jpg', *SIZE), (2, 'street/2.png', *SIZE)]
    for image, classes in ((1, CLASSES), (2, other)):
        annotations = data.loadAnns(data.getAnnIds([image]))
        painted = np.full(SIZE, -1)
        for annotation in annotations:
            mask = data.annToMask(annotation).astype(bool)
            assert annotation['area'] == mask.sum() and 'score' not in annotation
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert annotation['bbox'] == [columns[0], rows[0], np.ptp(columns) + 1,
                                          np.ptp(rows) + 1]
            painted[mask] = annotation['category_id'] - 1
        assert (painted == classes).all() and len(annotations) == len(np.unique(classes))
    ids = [a['id'] for a in data.dataset['annotations']]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize('codes', [False, True])
def test_coco_of_objects(tmp_path, codes):
    """Masks, boxes around them and scores; an empty mask is no object. Results for loadRes too."""
    masks = MASKS
    if codes:
        masks = codes_of(MASKS)
    form = FORMATS['coco'](model())
    data = load([form.encode(detected(masks))], form, tmp_path)
    annotations = data.dataset['annotations']
    assert [(a['category_id'], a['score']) for a in annotations] == [(2, 0.75), (5, 0.5)]
    for annotation, mask in zip(annotations, MASKS.numpy(), strict=False):
        assert (data.annToMask(annotation) == mask).all()
    assert len(data.loadRes(annotations).anns) == 2


def test_coco_of_boxes_alone(tmp_path):
    form = FORMATS['coco'](model())
    found = json.loads(form.encode(detected(masks=None)))['annotations']
    assert [a['bbox'] for a in found] == [[1, 2, 29, 18], [5, 5, 51, 35], [0, 0, 1, 1]]
    assert [a['area'] for a in found] == [29 * 18, 51 * 35, 1]
    assert not any('segmentation' in a for a in found)


def test_coco_of_a_panoptic_model(tmp_path):
    """Its segments, and not the objects that it came from."""
    segments, prediction = panoptic()
    form = FORMATS['coco'](model())
    data = load([form.encode(prediction)], form, tmp_path)
    found = [(a['category_id'], data.annToMask(a)) for a in data.dataset['annotations']]
    assert [label for label, _ in found] == [4, 2, 2]
    for (_, mask), number in zip(found, (3, 1001, 2001), strict=True):
        assert (mask == (segments == number)).all()
