"""Scenes as functions: deterministic, any size, labels that agree with the picture."""

import subprocess
import sys

import numpy as np
import pytest

from mmsparse.datasets.scene_objects import CLASSES
from mmsparse.datasets.scenes import SMALL_CLASSES, draw_scene, render_label, render_scene

SIZE = (192, 384)


def test_same_seed_and_index_give_the_same_scene_in_another_process():
    code = ('from mmsparse.datasets.scenes import render_scene; import zlib;'
            f'print([zlib.crc32(a.tobytes()) for a in render_scene(3, {SIZE}, 5)])')
    import zlib
    here = [zlib.crc32(a.tobytes()) for a in render_scene(3, SIZE, 5)]
    there = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True,
                           text=True, check=True).stdout
    assert there.strip().splitlines()[-1] == str(here)


@pytest.mark.parametrize('other', [(4, 5), (3, 6)])
def test_other_index_or_seed_gives_another_scene(other):
    _, label = render_scene(3, SIZE, 5)
    _, different = render_scene(other[0], SIZE, other[1])
    assert (label != different).mean() > 0.05


@pytest.mark.parametrize('size', [(1, 1), (7, 300), (95, 33), (181, 367), (512, 256)])
def test_any_size(size):
    image, label = render_scene(0, size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert label.shape == size and label.dtype == np.uint8
    assert label.max() < len(CLASSES)


def test_a_scene_is_the_same_place_at_every_size():
    large, small = render_label(2, (512, 1024)), render_label(2, (256, 512))
    assert (large[::2, ::2] == small).mean() > 0.95


def test_label_alone_equals_label_with_picture():
    np.testing.assert_array_equal(render_label(4, SIZE, 1), render_scene(4, SIZE, 1)[1])


def test_picture_and_label_come_from_one_material_map():
    """Without texture, light and noise, a color never crosses a class boundary."""
    canvas, rng = draw_scene(1, SIZE, 0)
    canvas.textures = [(0.0, 0.0)] * len(canvas.textures)
    # One color per class, so that any pixel of a wrong or mixed color is seen.
    canvas.colors = [np.array([20.0 * c, 200 - 15 * c, 100]) for c in canvas.classes]
    label = canvas.labels()
    image = canvas.picture(rng, gain=(1, 1, 1), noise=0).astype(float)
    # Light scales all channels alike: the ratio of the channels tells the class.
    ratio = image[..., 0] / np.maximum(image[..., 1], 1)
    for c in np.unique(label):
        expected = 20.0 * c / (200 - 15 * c)
        assert np.abs(ratio[label == c] - expected).max() < 0.12 + 0.05 * expected


def test_small_classes_are_there_and_small():
    labels = np.stack([render_label(i, (256, 512), 9) for i in range(8)])
    share = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert (share > 0).all()
    small = [CLASSES.index(name) for name in SMALL_CLASSES]
    assert share[small].max() < 0.04
    assert share[small].sum() < 0.1


def test_half_the_size_loses_small_things_and_keeps_large_ones():
    """What the demo is about, on the labels themselves: every second pixel, repeated."""
    labels = np.stack([render_scene(i, (512, 1024), 3)[1] for i in range(6)])
    halved = labels[:, 1::2, 1::2].repeat(2, 1).repeat(2, 2)
    small = [CLASSES.index(name) for name in SMALL_CLASSES]

    def iou(k):
        return ((labels == k) & (halved == k)).sum() / ((labels == k) | (halved == k)).sum()

    lost = {k: 1 - iou(k) for k in range(len(CLASSES))}
    large = [k for k in lost if k not in small]
    assert np.mean([lost[k] for k in small]) > 2 * np.mean([lost[k] for k in large])


@pytest.mark.parametrize('index, size, seed, error, message', [
    (-1, (8, 8), 0, ValueError, 'index of a scene must be >= 0, got -1'),
    (0, (8, 8), -2, ValueError, 'seed of a scene must be >= 0, got -2'),
    (1.5, (8, 8), 0, TypeError, 'index of a scene must be an integer, got 1.5'),
    (0, (8, 8), True, TypeError, 'seed of a scene must be an integer, got True'),
    (0, (0, 8), 0, ValueError, r'\(H, W\).*got \(0, 8\)'),
    (0, 64, 0, ValueError, r'\(H, W\).*got 64'),
    (0, (8, 8.5), 0, ValueError, r'\(H, W\)'),
])
def test_bad_arguments(index, size, seed, error, message):
    with pytest.raises(error, match=message):
        render_scene(index, size, seed)
