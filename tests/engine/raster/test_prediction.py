"""Pictures larger than memory: windows against the picture in one piece, and the rules of bands."""
import copy
import json
import resource
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.apis import predict
from mmsparse.engine.raster.field_of_view import FieldOfView, field_of_view
from mmsparse.engine.raster.file import CACHE, ClassRaster
from mmsparse.engine.raster.prediction import predict_raster
from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap
from tests.engine.raster.builders import build, near_cfg, refining_cfg
from tests.models.tiny import refined_cfg

rasterio = pytest.importorskip('rasterio', reason='rasters are read by rasterio')
SIZE = 600, 700


@pytest.fixture(scope='module')
def model():
    return build(near_cfg())


@pytest.fixture(scope='module')
def pixels():
    """Smooth noise, RGB uint8 ``[3, H, W]``."""
    small = torch.rand(1, 3, 75, 88, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(small, SIZE, mode='bilinear')[0]
    return (255 * large).byte().numpy()


def write(path, pixels, **profile):
    with rasterio.open(path, 'w', driver='GTiff', count=len(pixels), height=pixels.shape[1],
                       width=pixels.shape[2], dtype=pixels.dtype, **profile) as raster:
        raster.write(pixels)
    return path


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.fixture(scope='module')
def picture(pixels, tmp_path_factory):
    transform = rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)
    return write(tmp_path_factory.mktemp('raster') / 'p.tif', pixels, crs='EPSG:32633',
                 transform=transform, photometric='RGB')


def in_one_piece(model, pixels, divisor=64):
    """What mmseg makes of the whole picture, padded by its own preprocessor."""
    preprocessor = copy.copy(model.data_preprocessor)
    preprocessor.test_cfg = dict(size_divisor=divisor)
    shape = pixels.shape[1:]
    sample = SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape))
    data = preprocessor(dict(
        inputs=[torch.from_numpy(pixels[::-1].copy())], data_samples=[sample]), False)
    with torch.no_grad():
        result, = model(**data, mode='predict')
    return result


def test_windows_equal_the_picture_in_one_piece(picture, pixels, tmp_path):
    model = build(near_cfg())
    expected = in_one_piece(model, pixels, 32).pred_sem_seg.data[0].numpy()
    assert np.bincount(expected.ravel(), minlength=5).min() > 1000
    seen = []
    result = predict_raster(model, picture, tmp_path / 'o.tif', window=256,
                            on_window=lambda *done: seen.append(done))
    assert result.exact and result.overlap == (32, 32, True) and result.windows == 16
    assert seen == [(n, 16) for n in range(1, 17)]
    np.testing.assert_array_equal(read(tmp_path / 'o.tif'), expected)
    with pytest.warns(UserWarning, match=r'p.tif: the network sees farther .* overlap by 0 pixels'):
        result = predict_raster(model, picture, tmp_path / 'o.tif', window=256, halo=0)
    assert not result.exact and (read(tmp_path / 'o.tif') != expected).any()
    result = predict_raster(model, picture, tmp_path / 'o.tif', window=736)
    assert result == (1, (0, 32, True), True)
    np.testing.assert_array_equal(read(tmp_path / 'o.tif'), expected)


@pytest.mark.parametrize(('window', 'windows', 'upsample'), [
    (192, 110, 'nearest'), (256, 30, 'bilinear'), (384, 9, 'nearest')])
def test_refined_windows(picture, pixels, tmp_path, window, windows, upsample):
    """The low-resolution pass (300 x 350 pixels) by windows, and on the whole picture at once."""
    model = build(refining_cfg(upsample=upsample))
    expected = in_one_piece(model, pixels)
    assert 0.1 < expected.selected.data.float().mean() < 0.9
    changed = (expected.pred_sem_seg.data != expected.low_res_sem_seg.data).float().mean()
    assert changed > 0.05
    result = predict_raster(model, picture, tmp_path / 'o.tif', window=window)
    assert result == (windows, (64, 64, True), True)
    np.testing.assert_array_equal(read(tmp_path / 'o.tif'), expected.pred_sem_seg.data[0])
    with pytest.warns(UserWarning, match='overlap by 0 pixels'):
        result = predict_raster(model, picture, tmp_path / 'o.tif', window=window, halo=0)
    assert not result.exact
    assert (read(tmp_path / 'o.tif') != expected.pred_sem_seg.data[0].numpy()).any()


def test_the_refinement_sees_as_far_as_its_depth_says():
    """One pixel of a full mask reaches 46 pixels and the stem's one, and no farther."""
    unet = MODELS.build(dict(type='mmsparse.SparseUNet', channels=(2, 2, 2), engine='dense')).eval()
    image = torch.rand(1, 3, 160, 160)
    image[..., 80, 80] = torch.nan  # goes wherever it is looked at
    spoiled = unet(SparseMap.from_mask(image, torch.ones(1, 160, 160, dtype=torch.bool)))
    rows, columns = spoiled.isnan().any(1).view(160, 160).nonzero().unbind(1)
    found = max(int((axis - 80).abs().max()) for axis in (rows, columns))
    assert unet.reach == 47 and unet.reach - 4 <= found <= unet.reach


class Spots(nn.Module):
    """Scores that see ``left`` pixels to the left and ``up`` upwards, on a grid of ``stride``."""

    def __init__(self, left, up, stride):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.left, self.up, self.stride = left, up, stride

    def encode_decode(self, inputs, batch_img_metas):
        x = nn.functional.pad(inputs, (self.left, 0, self.up, 0))
        x = torch.relu(x[..., :-self.up, :-self.left])  # zeroes half: the view is not narrower
        x = nn.functional.avg_pool2d(x, self.stride)
        return nn.functional.interpolate(x, scale_factor=self.stride)


@pytest.mark.parametrize(('args', 'view'), [
    ((40, 3, 4), (64, 32)), ((3, 90, 32), (96, 32)), ((1, 1, 64), (64, 64)),
    ((1, 1, 128), (128, 128)), ((350, 1, 4), None), ((1, 1, 256), None)])
def test_field_of_view(args, view):
    assert field_of_view(Spots(*args), 768) == (view and FieldOfView(*view))


def test_attention_sees_all():
    class Mean(Spots):
        def encode_decode(self, inputs, batch_img_metas):
            return inputs + inputs.mean((2, 3), keepdim=True)
    assert field_of_view(Mean(1, 1, 1), 256) is None


# ---- Files ---------------------------------------------------------------------------------------


def labeled(model, path, tmp_path, **kwargs):
    predict_raster(model, path, tmp_path / 'o.tif', window=128, **kwargs)
    return read(tmp_path / 'o.tif')


def test_the_result_lies_where_the_picture_does(model, picture, tmp_path):
    labeled(model, picture, tmp_path)
    with rasterio.open(picture) as before, rasterio.open(tmp_path / 'o.tif') as after:
        assert (after.crs, after.transform, after.shape) == (
            before.crs, before.transform, before.shape)
        assert after.count == 1 and after.dtypes == ('uint8',) and after.nodata == 255
        assert after.profile['compress'] == 'deflate' and after.profile['tiled']
        assert after.block_shapes == [(64, 64)]  # windows of 128 less two halos
        assert after.colormap(1)[3] == (3, 9, 252, 255)
    assert [file.name for file in tmp_path.iterdir()] == ['o.tif']


def test_many_classes_take_16_bits(model, pixels, tmp_path):
    picture = write(tmp_path / 'p.tif', pixels[:, :200, :260])
    many = copy.copy(model)
    many.dataset_meta = dict(classes=[str(n) for n in range(256)])
    found = labeled(many, picture, tmp_path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labeled(model, picture, tmp_path))


def test_bands(model, pixels, tmp_path):
    """Every order of the same colors gives the same result, another gives another."""
    small = pixels[:, :200, :260]
    expected = labeled(model, write(tmp_path / 'rgb.tif', small), tmp_path)
    np.testing.assert_array_equal(
        expected, in_one_piece(model, small, 32).pred_sem_seg.data[0])
    assert (labeled(model, tmp_path / 'rgb.tif', tmp_path, bands=(3, 2, 1)) != expected).any()
    with rasterio.open(write(tmp_path / 'bgr.tif', small[::-1].copy()), 'r+') as raster:
        raster.colorinterp = [rasterio.enums.ColorInterp[c] for c in ('blue', 'green', 'red')]
    np.testing.assert_array_equal(labeled(model, tmp_path / 'bgr.tif', tmp_path), expected)
    four = np.stack([small[2], small[0] // 2, small[1], small[0]])
    four = write(tmp_path / 'four.tif', four, photometric='MINISBLACK')
    with pytest.raises(ValueError, match=r'four.tif has 4 bands: .* \(--bands 3 2 1\)'):
        labeled(model, four, tmp_path)
    np.testing.assert_array_equal(labeled(model, four, tmp_path, bands=(4, 3, 1)), expected)
    for bands in ((1, 2), (0, 1, 2), (1, 2, 5)):
        with pytest.raises(ValueError, match='has the bands 1 to 4'):
            labeled(model, four, tmp_path, bands=bands)
    gray = labeled(model, write(tmp_path / 'gray.tif', small[:1]), tmp_path)
    np.testing.assert_array_equal(
        gray, in_one_piece(model, small[[0, 0, 0]], 32).pred_sem_seg.data[0])
    np.testing.assert_array_equal(labeled(model, four, tmp_path, bands=[4]), gray)


def test_a_palette_gives_colors(model, pixels, tmp_path):
    numbers = pixels[0, :200, :260] // 16
    colors = np.random.default_rng(0).integers(256, size=(16, 3), dtype=np.uint8)
    path = write(tmp_path / 'p.tif', numbers[None], photometric='palette')
    with rasterio.open(path, 'r+') as raster:
        raster.write_colormap(1, dict(enumerate(map(tuple, colors))))
    np.testing.assert_array_equal(
        labeled(model, path, tmp_path),
        in_one_piece(model, colors[numbers].transpose(2, 0, 1), 32).pred_sem_seg.data[0])


@pytest.mark.parametrize('dtype', ['uint16', 'int16', 'float32'])
def test_white(model, pixels, tmp_path, dtype):
    small = pixels[:, :200, :260]
    expected = labeled(model, write(tmp_path / 'rgb.tif', small), tmp_path)
    deep = write(tmp_path / 'deep.tif', (small.astype(float) * 40).astype(dtype))
    with pytest.raises(ValueError, match=rf'deep.tif holds {dtype} numbers.*\(--white\)'):
        labeled(model, deep, tmp_path)
    np.testing.assert_array_equal(labeled(model, deep, tmp_path, white=10200), expected)
    with pytest.warns(UserWarning, match='values outside 0 to 5100 were cut off'):
        labeled(model, deep, tmp_path, white=5100)


def test_no_data(model, pixels, tmp_path):
    """By value, by alpha and by NaN; a window without any is not computed."""
    small, hole = pixels[:, :200, :260].copy(), np.zeros((200, 260), bool)
    hole[50:150, 130:] = True
    small[:, hole] = 0
    expected = in_one_piece(model, small, 32).pred_sem_seg.data[0].numpy()
    expected[hole] = 255
    values = np.where(hole, 7, small)
    values[:, ~hole & (small == 7).all(0)] = 8
    alpha = np.concatenate([small, np.where(hole, 0, 255)[None].astype(np.uint8)])
    files = [
        (write(tmp_path / 'value.tif', values.astype(np.uint8), nodata=7), {}),
        (write(tmp_path / 'alpha.tif', alpha, photometric='RGB', alpha='YES'), {}),
        (write(tmp_path / 'nan.tif', np.where(hole, np.nan, small).astype(np.float32)),
         dict(white=255))]
    for path, options in files:
        found = labeled(model, path, tmp_path, **options)
        np.testing.assert_array_equal(found, expected, path.name)
    hole[:, 64:] = True
    empty = write(tmp_path / 'empty.tif', np.where(hole, 7, small).astype(np.uint8), nodata=7)
    result = predict_raster(model, empty, tmp_path / 'o.tif', window=128)
    found = read(tmp_path / 'o.tif')
    assert result.windows == 4 and (found[:, 64:] == 255).all() and (found[:50, :64] < 5).all()


def test_failures_leave_nothing(model, picture, tmp_path, monkeypatch):
    """A file that is cut off, a full disk and Ctrl-C: the result that was there stays."""
    out = tmp_path / 'out' / 'o.tif'
    labeled(model, picture, tmp_path)
    out.parent.mkdir()
    out.write_bytes(b'earlier')
    cut = tmp_path / 'cut.tif'
    cut.write_bytes(picture.read_bytes()[:-500_000])
    with pytest.raises(OSError, match=r'cut.tif cannot be read at row \d+, column 0, or'):
        predict_raster(model, cut, out, window=128)
    with pytest.raises(OSError, match=r'nothing.tif'):
        predict_raster(model, tmp_path / 'nothing.tif', out)
    (tmp_path / 'text.tif').write_text('no raster')
    with pytest.raises(OSError, match=r'text.tif'):
        predict_raster(model, tmp_path / 'text.tif', out)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        predict_raster(model, picture, out, window=128, on_window=stop)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match=r'o.tif cannot be written'):
            predict_raster(model, picture, out, window=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    write = ClassRaster.write

    def lose_a_pixel(self, classes, window):
        write(self, classes, window)
        self.checksum -= window.top == window.left == 0
    monkeypatch.setattr(ClassRaster, 'write', lose_a_pixel)
    with pytest.raises(OSError, match=r'o.tif cannot be written: what was read back differs'):
        predict_raster(model, picture, out, window=128)
    assert out.read_bytes() == b'earlier' and list(out.parent.iterdir()) == [out]


def test_misuse(model, picture, tmp_path):
    def fails(message, model=model, error=ValueError, **kwargs):
        with pytest.raises(error, match=message):
            predict_raster(model, picture, tmp_path / 'o.tif', **kwargs)
        assert not (tmp_path / 'o.tif').exists()
    fails('window must be a multiple of 32.*got 100', window=100)
    fails('halo not negative, got 128 and -1', window=128, halo=-1)
    fails('more than twice the halo, got 128 and 64', window=128, halo=64)
    fails('is no segmentor', nn.Linear(1, 1), TypeError)
    for message, settings in {
            'low_res_size is': dict(low_res_size=(64, 64)),
            'low_res_flips is': dict(low_res_flips=('vertical',)),
            'max_points is a number': dict(
                selector=dict(type='mmsparse.EntropySelector', alpha=1, max_points=9)),
            'BoundarySelector': dict(selector=dict(type='mmsparse.BoundarySelector'))}.items():
        fails(message, build(refining_cfg(**settings)), window=256)
    fails('must have room for halos', build(refining_cfg()), window=192, halo=64)


def test_what_is_an_approximation(pixels, tmp_path):
    """Said, with the reason, and labeled all the same."""
    picture = write(tmp_path / 'p.tif', pixels[:, :96, :320])
    slide = dict(mode='slide', crop_size=(64, 64), stride=(48, 48))
    selector = dict(type='mmsparse.EntropySelector', alpha=1, max_density=0.5)
    for message, model in {
            "has test_cfg.mode='slide'": build(near_cfg(test_cfg=slide)),
            'max_density holds window by window': build(refining_cfg(selector=selector)),
            'CRM refines objects': build(refined_cfg(segmentor=near_cfg()))}.items():
        with pytest.warns(UserWarning, match=message):
            result = predict_raster(model, picture, tmp_path / 'o.tif', window=192, halo=32)
        assert not result.exact and read(tmp_path / 'o.tif').max() < 5


# ---- Beside other pictures -----------------------------------------------------------------------


@pytest.fixture
def folder(picture, pixels, tmp_path):
    """A georeferenced raster, one that needs bands, a TIFF without a place, and a PNG."""
    (tmp_path / 'in/deep').mkdir(parents=True)
    shutil.copy(picture, tmp_path / 'in/deep/map.tif')
    small = pixels[:, :96, :128]
    write(tmp_path / 'in/five.tif', np.concatenate([small, small])[:5], crs='EPSG:32633',
          transform=rasterio.Affine(1, 0, 4e5, 0, -1, 5e6))
    write(tmp_path / 'in/plain.tif', small, photometric='RGB')
    cv2.imwrite(str(tmp_path / 'in/photo.png'), small.transpose(1, 2, 0)[..., ::-1])
    return tmp_path


@pytest.fixture(scope='module')
def configured(model):
    """With a config, as ``init_model`` gives it."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return model


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


def test_predict_labels_rasters_by_windows(configured, pixels, folder):
    out = folder / 'out'
    options = dict(formats=['labels'], window=128)
    outcome = predict(configured, folder / 'in', out, **options)
    assert (outcome.written, outcome.skipped, outcome.stopped) == (3, 0, False)
    line, = outcome.failed
    assert line.startswith(f'{folder / "in/five.tif"} has 5 bands: say which are red')
    assert files(out) == ['labels/deep/map.tif', 'labels/photo.png', 'labels/plain.png']
    expected = in_one_piece(configured, pixels, 32).pred_sem_seg.data[0]
    np.testing.assert_array_equal(read(out / 'labels/deep/map.tif'), expected)
    outcome = predict(configured, folder / 'in', out, bands=(1, 2, 3), **options)
    assert (outcome.written, outcome.skipped, outcome.failed) == (1, 3, [])
    with rasterio.open(out / 'labels/five.tif') as labels:
        assert labels.crs.to_epsg() == 32633
    np.testing.assert_array_equal(
        read(out / 'labels/five.tif'), cv2.imread(str(out / 'labels/photo.png'), -1))


def test_predict_outlines_rasters(configured, folder):
    """With or without their class maps; what has no place on Earth is said."""
    alone, both = folder / 'alone', folder / 'both'
    named = folder / 'in/deep'
    predict(configured, named, alone, formats=['geojson'], window=256)
    predict(configured, named, both, formats=['labels', 'geojson'], window=256)
    assert files(alone) == ['geojson/map.geojson']
    assert files(both) == ['geojson/map.geojson', 'labels/map.tif']
    content = (alone / 'geojson/map.geojson').read_bytes()
    assert content == (both / 'geojson/map.geojson').read_bytes()
    found = {feature['properties']['class'] for feature in json.loads(content)['features']}
    assert found == set(np.unique(read(both / 'labels/map.tif')).tolist())
    outcome = predict(configured, folder / 'in/plain.tif', alone, formats=['geojson'])
    assert outcome.failed == [f'{folder / "in/plain.tif"} is not georeferenced (no CRS or no '
                              "transform), which the output format 'geojson' needs"]
    outcome = predict(configured, folder / 'in/deep', folder / 'coco', formats=['labels', 'coco'])
    assert not outcome.failed and files(folder / 'coco') == [
        '.parts/coco/map.json', 'coco.json', 'labels/map.png']


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(root):
    """16 times as many pixels in the same memory, but for GDAL's cache, which is bounded."""
    def measured(side):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'tests.engine.raster.memory_worker', 'plain',
             str(side)], capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    small, large = measured(2500), measured(10_000)
    assert large['labeled'] == 10_000**2 and large['exact']
    assert large['peak_mib'] < small['peak_mib'] + CACHE + 50 < 1500
