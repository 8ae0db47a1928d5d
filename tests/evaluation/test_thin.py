"""Thin structures by loops over discs, and figures by hand."""
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.evaluation import ThinStructureMetric
from mmsparse.evaluation.thin import thick_parts, thin_counts


def loop_thick_parts(mask, width):
    """Every disc that fits, painted: centers are farther than width / 2 from what is outside."""
    outside = np.argwhere(~mask)
    found, grid = np.zeros_like(mask), np.indices(mask.shape)
    for y, x in np.argwhere(mask):
        if not len(outside) or ((outside - (y, x)) ** 2).sum(1).min() > (width / 2) ** 2:
            found |= (grid[0] - y) ** 2 + (grid[1] - x) ** 2 <= (width / 2) ** 2
    return found & mask


@pytest.mark.parametrize('width', [3, 4, 7.5])
def test_thick_parts_by_loops(width):
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((9, 12)) < 0.55, np.ones((6, 6))).astype(bool)
    mask[26:28] = mask[:, 41] = True
    found = thick_parts(mask, width)
    assert np.array_equal(found, loop_thick_parts(mask, width))
    assert 0 < found.sum() < mask.sum()


@pytest.mark.parametrize('n', range(1, 14))
def test_a_strip_of_up_to_eight_pixels_is_thin(n):
    mask = np.zeros((60, 80), bool)
    mask[20:20 + n] = True
    assert thick_parts(mask, 8).any() == (n > 8)
    assert np.array_equal(thick_parts(mask, 8), mask & (n > 8))


def test_empty_and_full():
    for value in (False, True):
        mask = np.full((30, 40), value)
        assert np.array_equal(thick_parts(mask, 8), mask)


def sample(**maps):
    return SegDataSample(**{name: PixelData(data=torch.from_numpy(m)[None])
                            for name, m in maps.items()}).to_dict()


def test_figures_by_hand():
    """A strip of 20 pixels and one of 4, far apart; half of the thin one is found, and a spot."""
    label = np.zeros((100, 50), np.int64)
    label[10:30], label[60:64] = 1, 2
    label[:, 49] = 255
    pred = np.zeros_like(label)
    pred[10:32], pred[60:62], pred[90, :10] = 1, 1, 2  # another class is a structure, too
    low = np.where(label == 255, 0, label)
    counts = thin_counts(pred, label, 8)
    assert counts.tolist() == [[22 * 49, 24 * 49 + 10, 24 * 49], [2 * 49, 2 * 49 + 10, 4 * 49]]
    metric = ThinStructureMetric()
    metric.process({}, [sample(pred_sem_seg=pred, gt_sem_seg=label, low_res_sem_seg=low)] * 2)
    assert metric.evaluate(2) == pytest.approx({
        'structure/dice': 200 * 22 * 49 / (48 * 49 + 10),
        'structure/thin_iou': 100 * 98 / (4 * 49 + 10),
        'structure/low_res_dice': 100, 'structure/low_res_thin_iou': 100})


def test_a_width_that_is_none():
    with pytest.raises(ValueError, match='width must be positive, got 0'):
        ThinStructureMetric(width=0)
