"""The picture's parts, on arrays small enough to check by eye."""

import cv2
import numpy as np
import pytest

from mmsparse.visualization import (
    changes,
    liveliest_window,
    paint_classes,
    paint_mask,
    paint_score,
    refinement_panels,
    refinement_strip,
)
from mmsparse.visualization import panels as module
from mmsparse.visualization.panels import FIXED, LOOKED, MADE

PALETTE = [[10, 20, 30], [40, 50, 60]]


def test_paint_classes_is_rgb_to_bgr_and_black_outside_the_palette():
    painted = paint_classes(np.array([[0, 1, 255]]), PALETTE)
    assert painted.tolist() == [[[30, 20, 10], [60, 50, 40], [0, 0, 0]]]


@pytest.mark.parametrize('k', [1, 255, 256, 257, 300, 1203])
def test_any_number_of_classes(k):
    """By a loop; ignored values and those past the palette are black, and 256 is not 0."""
    rng = np.random.default_rng(0)
    palette = rng.integers(1, 256, (k, 3)).tolist()
    classes = np.concatenate([rng.integers(0, k, 50), [0, k - 1, k, -1, 255, 256, 2**16]])
    expected = [palette[c][::-1] if 0 <= c < k else [0, 0, 0] for c in classes.tolist()]
    assert paint_classes(classes[None], palette).tolist() == [expected]
    maps = np.resize(classes, (2, 20, 30))
    strip = refinement_strip(
        np.zeros((20, 30, 3), np.uint8), maps[0], np.ones((20, 30)), maps[1] > 3, maps[1],
        classes=[str(c) for c in range(k)], palette=palette)
    assert strip.shape[1] == 5 * 492


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


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_paint_score_spreads_the_values_over_the_colors(dtype):
    """Any map from its least to its greatest value; brighter is more."""
    painted = paint_score(np.array([[-1., 0., 3.]], dtype))
    ends = cv2.applyColorMap(np.array([[0, 64, 255]], np.uint8), cv2.COLORMAP_VIRIDIS)
    assert painted.tolist() == ends.tolist()
    gray = cv2.cvtColor(paint_score(np.linspace(0, 1, 256, dtype=dtype)[None]),
                        cv2.COLOR_BGR2GRAY)[0].astype(int)
    assert (np.diff(gray) >= -1).all() and gray[-1] - gray[0] > 100


def test_paint_score_of_a_constant_map_is_the_lowest_color():
    assert (paint_score(np.full((2, 3), 7.)) == paint_score(np.array([[0., 1.]]))[0, 0]).all()


@pytest.fixture
def titles(monkeypatch):
    """Titles of the panels that are drawn, in order."""
    seen = []
    titled = module._titled
    monkeypatch.setattr(module, '_titled', lambda title, picture: (
        seen.append(title), titled(title, picture))[1])
    return seen


def refinement(size=(40, 80)):
    """Image, low, score, selected, refined: no panel like another, two columns selected."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    low = np.zeros(size, int)
    score = np.linspace(.25, 1.5, size[1], dtype=np.float32)[None].repeat(size[0], 0)
    selected = np.zeros(size, bool)
    selected[:, -2:] = True
    return image, low, score, selected, np.where(selected, 1, low)


def test_strip_is_five_panels_in_a_row(titles):
    image, low, score, selected, refined = maps = refinement()
    strip = refinement_strip(*maps, classes=('road', 'pole'), palette=PALETTE, width=80)
    assert titles == ['Image', 'Low resolution', 'Entropy in nats (0.25 to 1.50)',
                      'Where the selector looked (2.5% of pixels)', 'Refined']
    assert strip.dtype == np.uint8 and strip.shape[1] == 5 * (80 + 12)
    # at its own width a panel is shown pixel by pixel, under its title
    panels = [strip[34:74, 6 + 92 * k:86 + 92 * k] for k in range(5)]
    assert (panels[0] == image).all()
    assert (panels[1] == paint_classes(low, PALETTE)).all()
    assert (panels[2] == paint_score(score)).all()
    assert ((panels[3] == LOOKED).all(-1) == selected).all()
    assert (panels[4] == paint_classes(refined, PALETTE)).all()


def test_legend_of_the_strip_tells_both_ends_of_the_score():
    strip = refinement_strip(*refinement(), classes=('road', 'pole'), palette=PALETTE, width=80)
    legend = {tuple(c) for c in strip[80:].reshape(-1, 3)}
    ends = paint_score(np.array([[0., 1.]]))[0]
    assert {(30, 20, 10), (60, 50, 40), *map(tuple, ends)} <= legend


@pytest.mark.parametrize('with_label', [True, False])
def test_panels_show_a_score(titles, with_label):
    """One panel more; an odd number leaves a place of paper."""
    image, low, score, selected, refined = refinement()
    panels = refinement_panels(image, low, selected, refined, refined if with_label else None,
                               score=score, score_name='Chance', classes=('road', 'pole'),
                               palette=PALETTE, width=80)
    assert titles[2] == 'Chance (0.25 to 1.50)'
    assert len(titles) == (7 if with_label else 5)
    assert panels.shape[1] == 2 * 92
    rows = 4 if with_label else 3
    assert (panels[80 * rows - 80:80 * rows, 92:] == 255).all()


def test_score_stays_out_without_one(titles):
    image, low, _, selected, refined = refinement()
    refinement_panels(image, low, selected, refined, classes=('road', 'pole'), palette=PALETTE)
    assert titles == ['Image', 'Low resolution', 'Where the selector looked (2.5% of pixels)',
                      'Refined']
