"""The picture's parts, on arrays small enough to check by eye."""

import numpy as np
import pytest

from mmsparse.visualization import (
    changes,
    liveliest_window,
    paint_classes,
    paint_mask,
    refinement_panels,
)
from mmsparse.visualization.panels import FIXED, MADE

PALETTE = [[10, 20, 30], [40, 50, 60]]


def test_paint_classes_is_rgb_to_bgr_and_black_outside_the_palette():
    painted = paint_classes(np.array([[0, 1, 255]]), PALETTE)
    assert painted.tolist() == [[[30, 20, 10], [60, 50, 40], [0, 0, 0]]]


def test_paint_mask_colors_the_mask_and_leaves_the_picture_alone():
    image = np.full((2, 2, 3), 200, np.uint8)
    mask = np.array([[True, False], [False, False]])
    out = paint_mask(image, mask, (1, 2, 3))
    assert out[0, 0].tolist() == [1, 2, 3]
    assert len(np.unique(out[1, 1])) == 1  # gray
    assert (image == 200).all()


def test_changes_by_hand():
    low = np.array([0, 0, 1, 1, 0])
    refined = np.array([0, 1, 1, 0, 1])
    label = np.array([0, 1, 0, 1, 255])
    fixed, made = changes(low, refined, label)
    assert fixed.tolist() == [False, True, False, False, False]
    assert made.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize('at', [(0, 0), (20, 33), (39, 59)])
def test_liveliest_window_holds_the_change(at):
    fixed = np.zeros((40, 60), bool)
    fixed[at] = True
    window = liveliest_window(fixed, np.zeros_like(fixed), (11, 16))
    part = fixed[window]
    assert part.shape == (11, 16) and part.any()


def test_liveliest_window_is_cut_to_a_small_picture():
    assert np.zeros((5, 7))[liveliest_window(*np.zeros((2, 5, 7), bool), (11, 16))].shape == (5, 7)


@pytest.mark.parametrize('with_label', [True, False])
@pytest.mark.parametrize('size', [(64, 128), (75, 41)])
def test_panels(size, with_label):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    low, refined, label = rng.integers(0, 2, (3, *size))
    panels = refinement_panels(image, low, low != refined, refined, label if with_label else None,
                               classes=('road', 'pole'), palette=PALETTE, width=200)
    assert panels.dtype == np.uint8
    rows = 3 if with_label else 2
    assert panels.shape[1] == 2 * (200 + 12)
    assert panels.shape[0] > rows * 200 * size[0] / size[1]
    seen = {tuple(c) for c in panels.reshape(-1, 3)}
    assert {(30, 20, 10), (60, 50, 40)} <= seen  # both classes
    assert ({FIXED, MADE} <= seen) == with_label


def test_window_enlarges_a_part():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:20, 10:20] = (0, 0, 255)
    empty = np.zeros((40, 40), int)
    panels = refinement_panels(image, empty, empty > 0, empty, classes=('road', 'pole'),
                               palette=PALETTE, width=100, window=(slice(10, 20), slice(10, 20)))
    assert (panels == (0, 0, 255)).all(-1).sum() == 100 * 100
