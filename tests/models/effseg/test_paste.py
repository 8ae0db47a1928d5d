"""Pasting: against loops over pixels, against mmdet's, and its memory."""
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from pycocotools import mask as coco

from mmsparse.models.effseg import paste as module
from mmsparse.models.effseg.paste import paste_masks
from tests.examples import examples


def loop_sample(mask, box, x, y):
    """Bilinear value of a mask at a pixel, by the definition, in Python's floats."""
    h, w = mask.shape
    u = (x + 0.5 - box[0]) / (box[2] - box[0]) * w - 0.5
    v = (y + 0.5 - box[1]) / (box[3] - box[1]) * h - 0.5
    value = 0.0
    for i in (math.floor(v), math.floor(v) + 1):
        for j in (math.floor(u), math.floor(u) + 1):
            if 0 <= i < h and 0 <= j < w:
                value += float(mask[i, j]) * (1 - abs(v - i)) * (1 - abs(u - j))
    return value


def loop_paste(mask, box, size, threshold):
    """Mask, mean over its foreground, and distance of the nearest value to the threshold."""
    pasted, values, margin = np.zeros(size, bool), [], 1.0
    for y in range(size[0]):
        for x in range(size[1]):
            # as mmdet: what lies more than a pixel outside the box is not looked at
            near = (math.floor(box[0]) - 1 <= x < math.ceil(box[2]) + 1
                    and math.floor(box[1]) - 1 <= y < math.ceil(box[3]) + 1)
            p = loop_sample(mask, box, x, y) if near else 0.0
            margin = min(margin, abs(p - threshold) or 1)
            if p > threshold:
                pasted[y, x] = True
                values.append(p)
    return pasted, sum(values) / (len(values) + 1e-6), margin


def random_case(seed, count=6, size=(23, 31), grid=(5, 7)):
    """Boxes inside, across the edges, narrower than a pixel and larger than the image."""
    g = torch.Generator().manual_seed(seed)
    height, width = size
    center = torch.rand(count, 2, generator=g) * torch.tensor([width, height]) * 1.2 - 2
    side = torch.rand(count, 2, generator=g) ** 3 * torch.tensor([width, height]) * 2 + 0.1
    probabilities = torch.rand(count, 1, *grid, generator=g)
    return probabilities, torch.cat([center - side / 2, center + side / 2], 1)


@given(st.integers(0, 2**31), st.sampled_from([0, 0.3, 0.5, 0.8]),
       st.sampled_from([1, 200, 3000, 2**20]))
@examples(30)
def test_against_a_loop(seed, threshold, max_bytes):
    probabilities, boxes = random_case(seed, count=3)
    size = (23, 31)
    masks, confidence = paste_masks(probabilities, boxes, size, threshold=threshold,
                                    max_bytes=max_bytes)
    assert masks.dtype == torch.bool and confidence.dtype == torch.float32
    for i in range(3):
        outside = bool((boxes[i, :2] >= torch.tensor([31, 23])).any() or (boxes[i, 2:] <= 0).any())
        expected, mean, margin = loop_paste(
            probabilities[i, 0].numpy(), boxes[i].tolist(), size, threshold)
        if outside:
            assert not masks[i].any() and confidence[i] == 0
        elif margin > 1e-5:  # the loop does not round as float32 does
            assert np.array_equal(masks[i].numpy(), expected)
            assert confidence[i].item() == pytest.approx(mean, rel=1e-4, abs=1e-6)


def mmdet_paste(probabilities, boxes, size, threshold):
    """As mmdet's mask heads paste on the CPU, one by one; but above the threshold, not at it."""
    masks, means = torch.zeros(len(boxes), *size, dtype=torch.bool), []
    for i in range(len(boxes)):
        pasted, place = _do_paste_mask(probabilities[i:i + 1], boxes[i:i + 1], *size)
        masks[(i,) + place] = pasted[0] > threshold
        values = pasted[pasted > threshold].double()
        means.append(float(values.sum() / (len(values) + 1e-6)))
    return masks, torch.tensor(means)


@pytest.mark.parametrize('max_bytes', [1, 10_000, 2**26])
@pytest.mark.parametrize('threshold', [0.25, 0.5])
def test_equals_mmdet_to_the_last_pixel(max_bytes, threshold):
    """Cut where the value stands exactly on the threshold too: 8-bit probabilities and boxes."""
    g = torch.Generator().manual_seed(0)
    size = (180, 260)
    probabilities = torch.randint(0, 5, (40, 1, 14, 14), generator=g) / 4
    low = torch.rand(40, 2, generator=g) * torch.tensor([240, 160])
    boxes = torch.cat([low, low + 5 + torch.rand(40, 2, generator=g) * 200], 1)
    boxes[:20] = boxes[:20].round()
    expected, means = mmdet_paste(probabilities, boxes, size, threshold)
    masks, confidence = paste_masks(probabilities, boxes, size, threshold=threshold,
                                    max_bytes=max_bytes)
    assert torch.equal(masks, expected) and masks.any((1, 2)).all()
    torch.testing.assert_close(confidence, means, rtol=1e-6, atol=0)


@pytest.mark.parametrize('max_bytes', [1, 5_000, 2**26])
def test_codes_are_those_of_the_masks(max_bytes):
    probabilities, boxes = random_case(0, count=40)
    masks, confidence = paste_masks(probabilities, boxes, (23, 31))
    codes, same = paste_masks(probabilities, boxes, (23, 31), encode=True, max_bytes=max_bytes)
    assert codes == [coco.encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in masks]
    torch.testing.assert_close(same, confidence, rtol=1e-6, atol=0)


def test_groups_of_strips_are_pasted_as_one_by_one():
    """What a GPU does: strips of different sides in one tensor."""
    probabilities, boxes = random_case(1, count=40)
    windows = module.paste_windows(boxes, (23, 31))
    strips = module.cut_into_strips(windows, 150)
    groups = list(module.group_strips(strips, 1500, 1000))
    assert torch.equal(torch.cat(groups), strips) and len(groups) < len(strips) / 3
    for group in groups:
        sides = (group[:, 3:] - group[:, 1:3]).amax(0)
        assert len(group) * sides.prod() <= 1500
        sampled = module.sample_strips(probabilities[group[:, 0]], boxes[group[:, 0]], group)
        for values, strip in zip(sampled, group, strict=True):
            i, left, top, right, bottom = strip.tolist()
            alone = module.sample_strips(probabilities[i:i + 1], boxes[i:i + 1], strip[None])[0]
            assert torch.equal(values[:bottom - top, :right - left], alone)
            rest = values.clone()
            rest[:bottom - top, :right - left] = 0
            assert not rest.any()


@pytest.mark.parametrize('max_bytes', [1, 2_000, 20_000, 2**26])
def test_many_at_once(max_bytes, monkeypatch):
    """The whole way of a GPU, on the CPU; strips of one instance may meet in one tensor."""
    probabilities, boxes = random_case(4, count=40)
    boxes[7] = math.nan
    masks, confidence = paste_masks(probabilities, boxes, (23, 31))
    monkeypatch.setitem(module.STRIPS_AT_ONCE, 'cpu', 1000)
    grouped = paste_masks(probabilities, boxes, (23, 31), max_bytes=max_bytes)
    assert torch.equal(grouped.masks, masks)
    torch.testing.assert_close(grouped.confidence, confidence, rtol=1e-6, atol=0)
    assert paste_masks(probabilities, boxes, (23, 31), encode=True, max_bytes=max_bytes).masks == [
        coco.encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in masks]


def test_confidence_by_hand():
    """Four pixels, a cell each: 0.6 and 0.9 are foreground, 0.5 is not above 0.5."""
    probabilities = torch.tensor([[0.6, 0.5], [0.1, 0.9]]).view(1, 1, 2, 2)
    masks, confidence = paste_masks(probabilities, torch.tensor([[3., 1, 5, 3]]), (4, 6))
    assert masks.nonzero().tolist() == [[0, 1, 3], [0, 2, 4]]
    assert confidence.item() == pytest.approx(1.5 / (2 + 1e-6), rel=1e-6)
    none = paste_masks(probabilities, torch.tensor([[3., 1, 5, 3]]), (4, 6), threshold=0.9)
    assert not none.masks.any() and none.confidence.tolist() == [0]


@pytest.mark.parametrize('box', [
    (5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5), (9, 5, 8, 9), (5.5, 5, 5.5, 9),
    (9, 5.5, 12, 5.5), (40, 3, 50, 9), (-9, 3, 0, 9),
    (3, 20, 9, 30), (3, -9, 9, -1), (3, math.nan, 9, 9), (math.nan,) * 4, (3, 3, math.inf, 9),
    (-math.inf, 3, 9, 9), (1e30, 1e30, 2e30, 2e30)])
@pytest.mark.parametrize('encode', [False, True])
def test_degenerate_boxes_are_empty_and_harm_no_other(box, encode):
    probabilities = torch.ones(3, 1, 7, 7)
    fine = [2., 3, 12, 10]
    boxes = torch.tensor([fine, box, fine])
    masks, confidence = paste_masks(probabilities, boxes, (20, 40), encode=encode)
    areas = [int(coco.area(m)) if encode else int(m.sum()) for m in masks]
    assert areas[1] == 0 and areas[0] == areas[2] == 70
    assert confidence[1] == 0 and confidence[0] == confidence[2] > 0.9


@pytest.mark.parametrize('side', [1e-3, 1e-20, 1e-38, 1e-44])
def test_boxes_of_hardly_any_area_cover_the_pixels_they_hold(side):
    """A box of next to nothing around the center of a pixel is that pixel, elsewhere none."""
    boxes = torch.tensor([[0., 0, side, side], [7.3, 2.2, 7.3 + side, 2.2 + side]])
    assert not paste_masks(torch.ones(2, 1, 7, 7), boxes, (20, 40)).masks.any()
    around = torch.tensor([[7.499, 2.499, 7.501, 2.501]])
    assert paste_masks(torch.ones(1, 1, 7, 7), around, (20, 40)).masks.nonzero().tolist() == [
        [0, 2, 7]]


def test_a_box_larger_than_float_pixels_fills_the_image():
    masks, confidence = paste_masks(torch.ones(1, 1, 4, 4), torch.tensor([[-1e6, -1e6, 1e6, 1e6]]),
                                    (11, 13))
    assert masks.all() and confidence.item() == pytest.approx(1)


def test_no_instance():
    empty = paste_masks(torch.rand(0, 1, 112, 112), torch.rand(0, 4), (20, 30))
    assert empty.masks.shape == (0, 20, 30) and empty.confidence.shape == (0,)
    assert paste_masks(torch.rand(0, 1, 112, 112), torch.rand(0, 4), (20, 30),
                       encode=True).masks == []


def test_half_precision_and_gradients_are_left_outside():
    probabilities, boxes = random_case(2)
    low = paste_masks(probabilities.half().requires_grad_(), boxes.half().requires_grad_(),
                      (23, 31))
    same = paste_masks(probabilities.half().float(), boxes.half().float(), (23, 31))
    assert torch.equal(low.masks, same.masks) and torch.equal(low.confidence, same.confidence)
    assert not low.confidence.requires_grad and low.confidence.dtype == torch.float32


@pytest.mark.parametrize(('change', 'message'), [
    (dict(probabilities=torch.rand(2, 3, 4, 4)), r'\[R, 1, h, w\], got \[2, 3, 4, 4\]'),
    (dict(probabilities=torch.rand(2, 1, 0, 4)), r'got \[2, 1, 0, 4\]'),
    (dict(boxes=torch.rand(3, 4)), r'boxes must be \[2, 4\], .* got \[3, 4\]'),
    (dict(size=(0, 4)), r'size must be \(H, W\) in pixels, got \(0, 4\)'),
    (dict(threshold=1.0), r'threshold must be in \[0, 1\), got 1.0'),
    (dict(threshold=-1), 'got -1'),
    (dict(max_bytes=0), 'max_bytes must be at least 1, got 0')])
def test_wrong_arguments_are_named(change, message):
    arguments = dict(probabilities=torch.rand(2, 1, 4, 4), boxes=torch.rand(2, 4), size=(5, 5))
    with pytest.raises(ValueError, match=message):
        paste_masks(**arguments | change)


@pytest.mark.parametrize(('count', 'height', 'width', 'mib', 'limit'), [
    (5, 3000, 4000, 16, 100),
    pytest.param(300, 4000, 6000, 64, 200, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_image(root, count, height, width, mib, limit):
    """A mask of the whole image would take 140 and 290 MB, all masks as bools 7 GB.

    A process that computes for the first time takes some more for itself, and not always the same.
    """
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', str(root / 'tests' / 'paste_memory_worker.py'),
         str(count), str(height), str(width), str(mib)], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found['codes'] == count and found['largest'] > 0.7 * height * width
    assert 0 < found['mib'] < limit


@pytest.mark.gpu
@pytest.mark.parametrize('max_bytes', [4_000, 2**26])
def test_the_gpu_pastes_the_same(max_bytes):
    probabilities, boxes = random_case(3, count=60)
    masks, confidence = paste_masks(probabilities, boxes, (23, 31))
    on_gpu = paste_masks(probabilities.cuda(), boxes.cuda(), (23, 31), max_bytes=max_bytes)
    assert on_gpu.masks.is_cuda and on_gpu.confidence.is_cuda
    assert (on_gpu.masks.cpu() != masks).float().mean() < 1e-4
    torch.testing.assert_close(on_gpu.confidence.cpu(), confidence, rtol=1e-3, atol=1e-6)
    codes = paste_masks(probabilities.cuda(), boxes.cuda(), (23, 31), encode=True,
                        max_bytes=max_bytes).masks
    assert codes == [coco.encode(np.asfortranarray(m.cpu().numpy().astype(np.uint8)))
                     for m in on_gpu.masks]
