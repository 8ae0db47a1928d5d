"""Predictions as label tools read them: each by that tool's own package or converter."""
import base64
import io
import json
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmsparse.engine.formats import FORMATS
from mmsparse.engine.formats.geojson import TOGETHER
from mmsparse.engine.formats.label_studio import MAX_RUN, brush_code
from mmsparse.engine.prediction import Prediction
from tests.examples import examples

CLASSES = 'road', 'traffic light', 'sky'
PALETTE = [(128, 64, 128), (250, 170, 30), (70, 130, 180)]
MODEL = SimpleNamespace(dataset_meta=dict(classes=CLASSES, palette=PALETTE))
SIZE = 40, 60
PICTURE = Path('town/1.png')


def classes():
    """Two of three classes, one with a hole and in two parts."""
    labels = np.zeros(SIZE, np.int64)
    labels[5:20, 10:30] = 2
    labels[10:15, 15:20] = 0
    labels[30:, 50:] = 2
    return labels


def segmented(labels=None, name=PICTURE, file=PICTURE):
    labels = classes() if labels is None else labels
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))
    return Prediction(file, name, np.zeros((*labels.shape, 3), np.uint8), sample)


def object_masks():
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 2:12, 3:23] = masks[1, 8:30, 15:40] = masks[2, 8:10, 15:50] = True
    masks[1, 20:22, 20:22] = False
    return masks


def detected(boxes_alone=False, file=PICTURE):
    masks = object_masks()
    found = InstanceData(
        labels=torch.tensor([1, 0, 1]), scores=torch.tensor([0.5, 0.75, 0.25]),
        bboxes=torch.tensor([[3., 2., 23., 12.], [15., 8., 40., 30.], [15., 8., 50., 10.]]))
    if not boxes_alone:
        found.masks = torch.from_numpy(masks)
    return Prediction(file, PICTURE, np.zeros((*SIZE, 3), np.uint8),
                      DetDataSample(pred_instances=found))


def document(key, *predictions, model=MODEL):
    form = FORMATS[key](model)
    return form.join(form.encode(prediction) for prediction in predictions)


# ---- CVAT ---------------------------------------------------------------------------------------


def read_voc(content, folder):
    """The masks of each picture, by label, as Datumaro reads them, which CVAT imports with."""
    datumaro = pytest.importorskip('datumaro', reason="CVAT's archives are read by Datumaro")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    found = datumaro.Dataset.import_from(str(folder), 'voc_instance_segmentation')
    labels = found.categories()[datumaro.AnnotationType.label]
    return {item.id: sorted(((labels[mask.label].name, mask.image) for mask in item.annotations),
                            key=lambda mask: (mask[0], -mask[1].sum())) for item in found}


def test_cvat_reads_classes(tmp_path):
    other = segmented(np.full((8, 9), 1), Path('2.jpg'))
    found = read_voc(document('cvat', segmented(), other), tmp_path)
    assert sorted(found) == ['2', 'town/1']
    (a, road), (b, sky) = found['town/1']
    assert (a, b) == ('road', 'sky')
    np.testing.assert_array_equal(road, classes() == 0)
    np.testing.assert_array_equal(sky, classes() == 2)
    (name, mask), = found['2']
    assert name == 'traffic light' and mask.all() and mask.shape == (8, 9)


def test_cvat_reads_objects(tmp_path):
    """The one of the higher score is above."""
    masks = object_masks()
    (_, road), (_, first), (_, second) = read_voc(document('cvat', detected()), tmp_path)['town/1']
    np.testing.assert_array_equal(road, masks[1])
    np.testing.assert_array_equal(first, masks[0] & ~masks[1])
    np.testing.assert_array_equal(second, masks[2] & ~masks[1] & ~masks[0])


@pytest.mark.parametrize('palette', [[(0, 0, 0), (1, 1, 1), (2, 2, 2)], [(9, 9, 9)] * 3])
def test_colors_that_cvat_cannot_tell_apart_are_replaced(tmp_path, palette):
    model = SimpleNamespace(dataset_meta=dict(classes=CLASSES, palette=palette))
    found = read_voc(document('cvat', segmented(), model=model), tmp_path)['town/1']
    assert [name for name, _ in found] == ['road', 'sky']
    np.testing.assert_array_equal(found[0][1], classes() == 0)


def test_what_cvat_calls_background(tmp_path):
    model = SimpleNamespace(dataset_meta=dict(
        classes=('background', 'car', 'sky'), palette=PALETTE))
    (name, sky), = read_voc(document('cvat', segmented(), model=model), tmp_path)['town/1']
    assert name == 'sky' and (sky == (classes() == 2)).all()
    with pytest.raises(ValueError, match=r"class names \['a:b'\]"):
        FORMATS['cvat'](SimpleNamespace(dataset_meta=dict(classes=('a:b',))))


def test_cvat_cannot_tell_300_objects_apart():
    masks = torch.zeros(300, 20, 20, dtype=torch.bool)
    masks.view(300, -1)[torch.arange(300), torch.arange(300)] = True
    sample = DetDataSample(pred_instances=InstanceData(
        masks=masks, labels=torch.zeros(300, dtype=torch.int64), scores=torch.ones(300),
        bboxes=torch.zeros(300, 4)))
    with pytest.raises(ValueError, match='300 objects were found'):
        FORMATS['cvat'](MODEL).encode(
            Prediction(PICTURE, PICTURE, np.zeros((20, 20, 3), np.uint8), sample))


# ---- Label Studio -------------------------------------------------------------------------------


def decoded(code, shape):
    brush = pytest.importorskip('label_studio_converter.brush', reason='decodes brushes')
    rgba = brush.decode_rle(code).reshape(*shape, 4)
    assert (rgba == rgba[..., :1]).all()
    return rgba[..., 3]


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=20)))
@examples(60)
def test_brushes(mask):
    np.testing.assert_array_equal(decoded(brush_code(mask), mask.shape), 255 * mask)


@given(st.sampled_from([-1, 0, 1, MAX_RUN // 4]))
@examples(4)
def test_long_runs_of_brushes(more):
    """Runs as long as a number of 16 bits can tell, and longer."""
    mask = np.zeros((1, 2 * MAX_RUN // 4 + 100), bool)
    mask[:, 50:50 + MAX_RUN // 4 + more] = True
    np.testing.assert_array_equal(decoded(brush_code(mask), mask.shape), 255 * mask)


def test_label_studio_reads_classes(tmp_path):
    """Its converter makes masks of the tasks, which it takes for annotations."""
    converter = pytest.importorskip('label_studio_converter', reason='reads tasks')
    tasks = json.loads(document('label-studio', segmented(name=Path('my town/1.png'))))
    assert tasks[0]['data'] == dict(image='/data/local-files/?d=my%20town/1.png')
    prediction, = tasks[0]['predictions']
    assert prediction['model_version'] == 'mmsparse' and 'score' not in prediction
    labels = ''.join(f'<Label value="{name}"/>' for name in CLASSES)
    config = ('<View><Image name="image" value="$image"/>'
              f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>')
    tasks[0] |= dict(id=1, annotations=[prediction | dict(id=1, completed_by=1)])
    (tmp_path / 'tasks.json').write_text(json.dumps(tasks))
    (tmp_path / 'out').mkdir()
    converter.Converter(config, str(tmp_path), download_resources=False).convert(
        str(tmp_path / 'tasks.json'), str(tmp_path / 'out'), 'BRUSH_TO_NUMPY', is_dir=False)
    found = {path.stem.partition('brush-')[2]: np.load(path)
             for path in (tmp_path / 'out').iterdir()}
    assert sorted(found) == ['road-0', 'sky-0']
    for name, label in (('road-0', 0), ('sky-0', 2)):
        np.testing.assert_array_equal(found[name], 255 * (classes() == label))


def test_label_studio_has_every_object():
    task, = json.loads(document('label-studio', detected()))
    prediction, = task['predictions']
    assert prediction['score'] == 0.5
    for result, mask, label, score in zip(prediction['result'], object_masks(), (1, 0, 1),
                                          (0.5, 0.75, 0.25), strict=True):
        assert result['value']['brushlabels'] == [CLASSES[label]] and result['score'] == score
        assert (result['original_height'], result['original_width']) == SIZE
        np.testing.assert_array_equal(decoded(result['value']['rle'], SIZE), 255 * mask)
    task, = json.loads(document('label-studio', detected(boxes_alone=True)))
    value = task['predictions'][0]['result'][0]['value']
    assert value == dict(x=5, y=5, width=pytest.approx(100 / 3), height=25, rotation=0,
                         rectanglelabels=['traffic light'])


# ---- FiftyOne -----------------------------------------------------------------------------------


def unpacked(value):
    """As FiftyOne reads an array: bytes of BSON, zlib, numpy."""
    assert value['$binary'].keys() == {'base64', 'subType'}
    return np.load(io.BytesIO(zlib.decompress(base64.b64decode(value['$binary']['base64']))))


def test_fiftyone_segmentation():
    """By the documented structure alone: FiftyOne itself needs its database."""
    data = json.loads(document('fiftyone', segmented(), segmented(name=Path('2.png'))))
    assert data['media_type'] == 'image' and data['name']
    assert data['sample_fields'] == dict(
        prediction='fiftyone.core.fields.EmbeddedDocumentField('
                   'fiftyone.core.labels.Segmentation)')
    assert data['default_mask_targets'] == {'1': 'road', '2': 'traffic light', '3': 'sky'}
    assert [sample['filepath'] for sample in data['samples']] == ['town/1.png', '2.png']
    label = data['samples'][0]['prediction']
    mask = unpacked(label['mask'])
    assert label['_cls'] == 'Segmentation' and mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, classes() + 1)


@pytest.mark.parametrize('boxes_alone', [False, True])
def test_fiftyone_detections(boxes_alone):
    data = json.loads(document('fiftyone', detected(boxes_alone)))
    label = data['samples'][0]['prediction']
    assert label['_cls'] == 'Detections' and data['default_mask_targets'] == {}
    first = label['detections'][1]
    assert first['_cls'] == 'Detection' and first['label'] == 'road'
    assert first['confidence'] == 0.75
    np.testing.assert_allclose(first['bounding_box'], [15 / 60, 8 / 40, 25 / 60, 22 / 40])
    if boxes_alone:
        assert 'mask' not in first
        return
    for detection, mask in zip(label['detections'], object_masks(), strict=True):
        x, y, w, h = (round(n * side) for n, side in zip(
            detection['bounding_box'], (60, 40, 60, 40), strict=True))
        found = np.zeros(SIZE, bool)
        found[y:y + h, x:x + w] = unpacked(detection['mask'])
        np.testing.assert_array_equal(found, mask)


# ---- GeoJSON ------------------------------------------------------------------------------------


def place(up=False):
    """UTM 33 N, half a meter; the first row in the north, or in the south."""
    from rasterio import Affine
    return Affine(0.5, 0, 4e5, 0, 0.5 if up else -0.5, 5e6)


def write_raster(path, **kwargs):
    rasterio = pytest.importorskip('rasterio', reason='rasters are read by rasterio')
    with rasterio.open(path, 'w', driver='GTiff', height=SIZE[0], width=SIZE[1], count=1,
                       dtype='uint8', nodata=255, crs='EPSG:32633', transform=place(**kwargs),
                       ) as file:
        file.write(classes().astype(np.uint8), 1)
    return path


@pytest.fixture
def raster(tmp_path):
    return write_raster(tmp_path / 'r.tif')


def burnt(collection, values, **kwargs):
    """Features drawn into a raster again, from longitude and latitude, by rasterio."""
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom
    moved = transform_geom(
        'EPSG:4326', 'EPSG:32633', [feature['geometry'] for feature in collection['features']])
    drawn = list(zip(moved, values, strict=True))
    return rasterize(drawn, SIZE, fill=99, transform=place(**kwargs))


def counterclockwise(ring):
    from shapely import LinearRing
    return LinearRing(ring).is_ccw


@pytest.mark.parametrize('up', [False, True])
def test_outlines_of_classes(tmp_path, up):
    raster = write_raster(tmp_path / 'r.tif', up=up)
    form = FORMATS['geojson'](MODEL)
    form.write_raster(raster, tmp_path / 'r.geojson')
    content = form.encode(segmented(file=raster))
    assert (tmp_path / 'r.geojson').read_bytes() == content
    found = json.loads(content)
    names = sorted(feature['properties']['name'] for feature in found['features'])
    assert found['type'] == 'FeatureCollection' and names == ['road', 'road', 'sky', 'sky']
    values = [feature['properties']['class'] for feature in found['features']]
    np.testing.assert_array_equal(burnt(found, values, up=up), classes())
    for feature in found['features']:
        outer, *holes = feature['geometry']['coordinates']
        assert counterclockwise(outer) and not any(map(counterclockwise, holes))
        longitude, latitude = outer[0]
        assert 13.7 < longitude < 13.8 and 45.1 < latitude < 45.2  # UTM 33 N, x 400 km, y 5000 km


def test_many_outlines(raster):
    """More than are moved to longitude and latitude at a time."""
    labels = np.indices(SIZE).sum(0) % 3  # each pixel by itself
    found = json.loads(FORMATS['geojson'](MODEL).encode(segmented(labels, file=raster)))
    assert len(found['features']) == labels.size > 2 * TOGETHER
    values = [feature['properties']['class'] for feature in found['features']]
    np.testing.assert_array_equal(burnt(found, values), labels)


def test_outlines_of_objects(raster):
    found = json.loads(FORMATS['geojson'](MODEL).encode(detected(file=raster)))
    scores = [feature['properties']['score'] for feature in found['features']]
    assert scores == [0.5, 0.75, 0.25]
    expected = np.full(SIZE, 99)
    for number, mask in enumerate(object_masks()):
        expected[mask] = number
    np.testing.assert_array_equal(burnt(found, range(3)), expected)


def test_a_picture_from_nowhere_has_no_outlines(tmp_path):
    import cv2
    pytest.importorskip('rasterio', reason='rasters are read by rasterio')
    cv2.imwrite(str(tmp_path / 'p.tif'), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=r'p.tif is not georeferenced'):
        FORMATS['geojson'](MODEL).encode(segmented(file=tmp_path / 'p.tif'))
    (tmp_path / 'p.jpg').write_bytes(b'x')
    with pytest.raises(ValueError, match=r'p.jpg is no raster with a place on Earth'):
        FORMATS['geojson'](MODEL).encode(segmented(file=tmp_path / 'p.jpg'))
