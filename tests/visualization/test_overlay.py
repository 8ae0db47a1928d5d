"""A picture under the colors and names of its classes."""
import cv2
import numpy as np

from mmsparse.rle import Patch
from mmsparse.visualization import Shape, paint_over, paint_shapes

PALETTE = [[255, 0, 0], [0, 0, 200], [0, 90, 0]]


def test_colors_are_mixed_in_and_each_name_stands_in_its_class():
    """But for the names, a mean of picture and color; what has no class keeps its color."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    classes = np.zeros((200, 300), int)
    classes[:, 150:], classes[:20] = 2, 255
    classes[150:, :100] = -1
    found = paint_over(image, classes, 'abc', PALETTE, alpha=0.25)
    colors = np.array(PALETTE)[np.clip(classes, 0, 2)][..., ::-1]
    expected = 0.75 * image + 0.25 * colors
    expected[(classes == 255) | (classes == -1)] = image[(classes == 255) | (classes == -1)]
    changed = np.abs(found - expected).max(-1) > 1
    assert 0 < changed.mean() < 0.02
    for label in (0, 2):  # near the middle of the class, away from its edges
        rows, columns = np.nonzero(changed & (classes == label))
        own = np.argwhere(classes == label)
        assert np.abs(rows.mean() - own[:, 0].mean()) < 30
        assert np.abs(columns.mean() - own[:, 1].mean()) < 40
    assert not changed[(classes != 0) & (classes != 2)].any()


def test_names_have_room_in_the_smallest_pictures():
    for size in ((1, 1), (3, 200), (200, 3)):
        image = np.zeros((*size, 3), np.uint8)
        assert paint_over(image, np.zeros(size, int), ['a long name'], PALETTE).shape == image.shape


def test_objects_have_their_color_an_outline_and_a_name():
    """Where neither outline nor name is, a mean of picture and color, to the pixel."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (200, 300, 3), dtype=np.uint8)
    mask = cv2.ellipse(np.zeros((90, 120), np.uint8), (60, 45), (55, 40), 0, 0, 360, 1, -1) > 0
    found = paint_shapes(image, [Shape(Patch(mask, 100, 20), (), 'a', PALETTE[0])], alpha=0.25)
    whole = np.zeros((200, 300), bool)
    whole[100:190, 20:140] = mask
    expected = image.astype(float)
    expected[whole] = 0.75 * image[whole] + 0.25 * np.array(PALETTE[0])[::-1]
    changed = np.abs(found - expected).max(-1) > 1
    edge = whole & ~cv2.erode(whole.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert not changed[~whole].any() and (found[edge] == 255).mean() > 0.5
    assert 0 < changed[whole & ~edge].mean() < 0.1
    rows, columns = np.nonzero(changed & ~edge)
    assert abs(rows.mean() - 145) < 8 and abs(columns.mean() - 80) < 8


def test_boxes_and_the_order_of_objects():
    image = np.zeros((100, 100, 3), np.uint8)
    box = Shape(None, (10, 20, 50, 60), '', PALETTE[0])
    found = paint_shapes(image, [box])
    assert (found[20:80, 10] == PALETTE[0][::-1]).all() and not found[30:70, 20:50].any()
    full = Patch(np.ones((100, 100), bool), 0, 0)
    two = [Shape(full, (), '', color) for color in PALETTE[:2]]
    assert (paint_shapes(image, two, alpha=1)[50, 50] == PALETTE[1][::-1]).all()
