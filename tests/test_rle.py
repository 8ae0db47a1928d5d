"""Run-length codes through patches, against pycocotools, which goes through whole images."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from mmsparse.rle import Patch, decode_patch, encode_patch, encode_runs, patch_runs
from tests.examples import examples


def full(patch, size):
    mask = np.zeros(size, np.uint8, order='F')
    h, w = patch.mask.shape
    mask[patch.top:patch.top + h, patch.left:patch.left + w] = patch.mask
    return mask


@st.composite
def patches(draw):
    """A patch of noise, empty or full, anywhere in an image, often at its edges."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    h, w = draw(st.integers(0, height - top)), draw(st.integers(0, width - left))
    density = draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return Patch(rng.random((h, w)) < density, top, left), (height, width)


@given(patches())
@examples(300)
def test_codes_are_those_of_pycocotools(case):
    patch, size = case
    assert encode_patch(patch, size) == coco.encode(full(patch, size))


@given(patches(), st.booleans())
@examples(300)
def test_a_decoded_window_is_the_foreground(case, text):
    patch, size = case
    mask = full(patch, size)
    code = coco.encode(mask)
    if text:
        code['counts'] = code['counts'].decode()
    found = decode_patch(code)
    assert np.array_equal(full(found, size), mask)
    assert found.mask.dtype == bool
    if mask.any():  # and no more than its bounding box
        left, top, w, h = coco.toBbox(coco.encode(mask)).astype(int)
        assert (found.top, found.left, found.mask.shape) == (top, left, (h, w))
    else:
        assert found.mask.size == 0


@given(patches(), st.integers(1, 5), st.integers(1, 5))
@examples(200)
def test_tiles_in_any_order_are_one_mask(case, rows, columns):
    """Runs that go on in the next tile, below or to the right of it, are one run."""
    patch, size = case
    height, width = patch.mask.shape
    tiles = [Patch(patch.mask[y:y + rows, x:x + columns], patch.top + y, patch.left + x)
             for y in range(0, height, rows) for x in range(0, width, columns)]
    runs = [patch_runs(tile, size[0]) for tile in tiles[::-1]]
    assert encode_runs(runs, size) == coco.encode(full(patch, size))


@pytest.mark.parametrize('size', [(1, 1), (3000, 5000)])
def test_large_numbers(size):
    """Runs of millions of pixels, and differences of runs that are as long and negative."""
    mask = np.zeros(size, np.uint8, order='F')
    mask[-1:, -1:] = 1
    patch = decode_patch(coco.encode(mask))
    assert (patch.top, patch.left, patch.mask.tolist()) == (size[0] - 1, size[1] - 1, [[True]])
    assert encode_patch(patch, size) == coco.encode(mask)
    mask[:, size[1] // 3:size[1] // 2] = 1
    mask[:5, :7] = 1
    mask[-3:, 70:75] = 1
    assert np.array_equal(full(decode_patch(coco.encode(mask)), size), mask)


def test_runs_of_length_zero_are_skipped():
    """Some writers of codes leave them in: 2 off, 1 on, 0 off, 2 on, 0 off, 0 on, 7 off."""
    code = coco.frPyObjects(dict(size=[4, 3], counts=[2, 1, 0, 2, 0, 0, 7]), 4, 3)
    expected = np.zeros(12, bool)
    expected[2:5] = True
    assert np.array_equal(full(decode_patch(code), (4, 3)), expected.reshape(3, 4).T)
