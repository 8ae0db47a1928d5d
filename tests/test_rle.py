"""Run-length codes through windows, against pycocotools, which goes through whole images."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mmsparse.rle import Window, decode_window, encode_runs, encode_window, window_runs


def full(window, size):
    mask = np.zeros(size, np.uint8, order='F')
    h, w = window.mask.shape
    mask[window.top:window.top + h, window.left:window.left + w] = window.mask
    return mask


@st.composite
def windows(draw):
    """A window of noise, empty or full, anywhere in an image, often at its edges."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    h, w = draw(st.integers(0, height - top)), draw(st.integers(0, width - left))
    density = draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return Window(rng.random((h, w)) < density, top, left), (height, width)


@given(windows())
@settings(max_examples=300, deadline=None)
def test_codes_are_those_of_pycocotools(case):
    window, size = case
    assert encode_window(window, size) == coco.encode(full(window, size))


@given(windows(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_decoded_window_is_the_foreground(case, text):
    window, size = case
    mask = full(window, size)
    code = coco.encode(mask)
    if text:
        code['counts'] = code['counts'].decode()
    found = decode_window(code)
    assert np.array_equal(full(found, size), mask)
    assert found.mask.dtype == bool
    if mask.any():  # and no more than its bounding box
        left, top, w, h = coco.toBbox(coco.encode(mask)).astype(int)
        assert (found.top, found.left, found.mask.shape) == (top, left, (h, w))
    else:
        assert found.mask.size == 0


@given(windows(), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_tiles_in_any_order_are_one_mask(case, rows, columns):
    """Runs that go on in the next tile, below or to the right of it, are one run."""
    window, size = case
    height, width = window.mask.shape
    tiles = [Window(window.mask[y:y + rows, x:x + columns], window.top + y, window.left + x)
             for y in range(0, height, rows) for x in range(0, width, columns)]
    runs = [window_runs(tile, size[0]) for tile in tiles[::-1]]
    assert encode_runs(runs, size) == coco.encode(full(window, size))


@pytest.mark.parametrize('size', [(1, 1), (3000, 5000)])
def test_large_numbers(size):
    """Runs of millions of pixels, and differences of runs that are as long and negative."""
    mask = np.zeros(size, np.uint8, order='F')
    mask[-1:, -1:] = 1
    window = decode_window(coco.encode(mask))
    assert (window.top, window.left, window.mask.tolist()) == (size[0] - 1, size[1] - 1, [[True]])
    assert encode_window(window, size) == coco.encode(mask)
    mask[:, size[1] // 3:size[1] // 2] = 1
    mask[:5, :7] = 1
    mask[-3:, 70:75] = 1
    assert np.array_equal(full(decode_window(coco.encode(mask)), size), mask)


def test_runs_of_length_zero_are_skipped():
    """Some writers of codes leave them in: 2 off, 1 on, 0 off, 2 on, 0 off, 0 on, 7 off."""
    code = coco.frPyObjects(dict(size=[4, 3], counts=[2, 1, 0, 2, 0, 0, 7]), 4, 3)
    expected = np.zeros(12, bool)
    expected[2:5] = True
    assert np.array_equal(full(decode_window(code), (4, 3)), expected.reshape(3, 4).T)
