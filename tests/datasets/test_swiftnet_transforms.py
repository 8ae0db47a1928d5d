"""SwiftNet's crop and boundary weights, by hand."""
import numpy as np
import pytest
import torch
from mmseg.structures import SegDataSample

from mmsparse.datasets import (
    LabelBoundaryWeight,
    PackWeightedSegInputs,
    RandomSquareCropAndScale,
)
from mmsparse.datasets.transforms.swiftnet import boundary_distance


def sample(height, width, label=None):
    """An image whose color tells its pixel's place."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y % 256, x % 256, np.full_like(y, 7)], -1).astype(np.uint8)
    label = np.zeros((height, width), np.uint8) if label is None else label
    return dict(img=image, gt_seg_map=label, seg_fields=['gt_seg_map'], img_shape=(height, width),
                ori_shape=(height, width))


@pytest.mark.parametrize('fixed', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('size', [(64, 96), (40, 200)])
def test_the_crop_pads_right_and_below_only(size, fixed):
    np.random.seed(0)
    crop = RandomSquareCropAndScale(64, (fixed, fixed), pad_val=(1, 2, 255))
    found = crop(sample(*size))
    side = int(64 * fixed)
    assert found['img'].shape == (64, 64, 3) and found['gt_seg_map'].shape == (64, 64)
    assert found['img_shape'] == found['pad_shape'] == (64, 64)
    padded = found['gt_seg_map'] == 255
    rows, columns = (min(1, n / side) for n in size)  # shares of the square that the image fills
    expected = np.ones((64, 64), bool)
    expected[:round(64 * rows), :round(64 * columns)] = False
    assert np.array_equal(padded, expected)
    if fixed == 1.0:  # no resizing: the padding has its color, the rest is a window of the image
        assert (found['img'][padded] == (1, 2, 255)).all()
        inside = found['img'][~padded].reshape(-1, 3)
        assert (inside[:, 2] == 7).all()


def test_places_and_sides_are_uniform():
    np.random.seed(0)
    sides, tops = [], []
    for _ in range(2000):
        crop = RandomSquareCropAndScale(32)
        y = np.arange(100, dtype=np.float32)[:, None].repeat(100, 1)
        results = sample(100, 100)
        results['img'] = np.stack([y] * 3, -1)
        window = crop(results)['img'][..., 0]
        tops.append(window[0, 0])
        sides.append((window[-1, 0] - window[0, 0]) * 32 / 31)
    assert 14 <= min(sides) and max(sides) <= 68
    assert np.mean(sides) == pytest.approx(32 * 1.25, rel=0.03)
    zoom = 32 / np.asarray(sides)
    assert zoom.mean() == pytest.approx(0.92, abs=0.05)
    assert (zoom > 1).mean() == pytest.approx(1 / 3, abs=0.05)
    assert np.mean(tops) == pytest.approx((100 - 40) / 2, rel=0.1)


def test_weights_of_a_half_plane():
    label = np.zeros((4, 400), np.uint8)
    label[:, 200:] = 1
    weight = LabelBoundaryWeight()(sample(4, 400, label))['gt_weight_map']
    assert weight.dtype == np.float32
    distance = np.where(np.arange(400) < 200, 200 - np.arange(400), np.arange(400) - 199)
    expected = np.select([distance < 16, distance < 64, distance < 128], [8, 4, 2], 1)
    assert np.array_equal(weight, np.broadcast_to(expected, (4, 400)))


def test_one_class_has_no_boundary_and_no_label_no_weight():
    weigh = LabelBoundaryWeight()
    assert (weigh(sample(20, 30))['gt_weight_map'] == 1).all()
    label = np.zeros((20, 300), np.uint8)
    label[:, :10] = 255
    weight = weigh(sample(20, 300, label))['gt_weight_map']
    assert (weight[:, :10] == 0).all() and (weight[:, 10:25] == 8).all()


def test_distance_equals_a_search():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (6, 8)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    label[5:8, 20:27] = 255
    y, x = np.mgrid[:24, :32]
    for (i, j), found in np.ndenumerate(boundary_distance(label)):
        other = label != label[i, j]
        expected = 0 if label[i, j] == 255 else np.hypot(y[other] - i, x[other] - j).min()
        assert found == pytest.approx(expected, rel=0.03)


def test_the_weights_are_packed_as_floats():
    label = np.zeros((8, 8), np.uint8)
    label[:, 4:] = 1
    packed = PackWeightedSegInputs()(LabelBoundaryWeight()(sample(8, 8, label)))
    data_sample = packed['data_samples']
    assert isinstance(data_sample, SegDataSample)
    assert data_sample.gt_weight_map.data.shape == (1, 8, 8)
    assert data_sample.gt_weight_map.data.dtype == torch.float32


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: RandomSquareCropAndScale(0), 'needs size >= 1'),
    (lambda: RandomSquareCropAndScale(9, (2, 1)), r'got 9 and \(2, 1\)'),
    (lambda: LabelBoundaryWeight(bins=(4, 2), alphas=(1, 2, 3)), 'ascending bins'),
    (lambda: LabelBoundaryWeight(bins=(4,), alphas=(1,)), 'one alpha more')])
def test_settings_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_images_of_other_types_are_refused():
    results = sample(20, 20)
    results['img'] = results['img'].astype(np.float64)
    with pytest.raises(TypeError, match='must be uint8 or float32, got float64'):
        RandomSquareCropAndScale(8)(results)
