"""IoU and mean boundary accuracy, against loops and by hand."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.evaluation import boundary_accuracy, boundary_radii
from mmsparse.evaluation.boundary_mba import boundary_bands, class_areas, foreground
from tests.examples import examples

NAN = pytest.approx(math.nan, nan_ok=True)


def loop_offsets(radius):
    """The filled ellipse of ``2 * radius + 1`` pixels: rows as wide as the circle, rounded."""
    offsets = []
    for dy in range(-radius, radius + 1):
        reach = round(math.sqrt(radius ** 2 - dy ** 2))
        offsets += [(dy, dx) for dx in range(-reach, reach + 1)]
    return offsets


def loop_band(inside, radius):
    """Dilation without erosion of a bool mask: pixels that see it and something else."""
    height, width = inside.shape
    band = np.zeros_like(inside)
    for y in range(height):
        for x in range(width):
            seen = {bool(inside[y + dy, x + dx]) for dy, dx in loop_offsets(radius)
                    if 0 <= y + dy < height and 0 <= x + dx < width}
            band[y, x] = len(seen) == 2
    return band


def loop_accuracy(prediction, target, void=None):
    """Class by class; void has no boundary of its own and counts nowhere."""
    height, width = target.shape
    shares = []
    for i in range(5):
        radius = 1 + int(((width + height) / 300 - 1) / 5 * i)
        band = np.zeros(target.shape, bool)
        for label in np.unique(target):
            if label != void and label is not np.False_:
                band |= loop_band(target == label, radius)
        right = total = 0
        for y, x in zip(*np.nonzero(band), strict=True):
            if target[y, x] != void:
                total += 1
                right += prediction[y, x] == target[y, x]
        shares.append(right / total)
    return sum(shares) / 5


@pytest.mark.parametrize(('width', 'height', 'radii'), [
    (500, 375, [1, 1, 1, 2, 2]), (2048, 1600, [1, 3, 5, 7, 9]), (3840, 2160, [1, 4, 8, 12, 16]),
    (5000, 3600, [1, 6, 12, 17, 23]), (337, 337, [1] * 5), (338, 337, [1, 1, 1, 1, 2]),
    (10, 20, [1] * 5)])
def test_radii(width, height, radii):
    assert boundary_radii(height, width) == radii
    assert boundary_radii(width, height) == radii


@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(2, 9), st.booleans())
@examples(40)
def test_small_masks_against_a_loop(seed, height, width, labels):
    rng = np.random.default_rng(seed)
    target, prediction = rng.integers(3 if labels else 2, size=(2, height, width))
    if labels:
        target[rng.random(target.shape) < 0.2] = 255
    else:
        target, prediction = target.astype(bool), prediction.astype(bool)
    found = boundary_accuracy(prediction, target)
    if len(np.unique(target)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(loop_accuracy(prediction, target, 255 if labels else None))


@pytest.mark.parametrize('classes', [2, 3])
def test_larger_radii_against_a_loop(classes):
    """A thin wide image, whose radii grow as those of a large one do."""
    rng = np.random.default_rng(0)
    target = rng.integers(classes, size=(3, 150)).repeat(8, 0).repeat(8, 1)
    prediction = np.where(rng.random(target.shape) < 0.8, target, 1)
    if classes == 2:
        target, prediction = target == 1, prediction == 1
    else:
        target[5:9, 100:300] = 255
    assert boundary_radii(*target.shape) == [1, 1, 2, 2, 3]
    expected = loop_accuracy(prediction, target, 255 if classes == 3 else None)
    assert boundary_accuracy(prediction, target) == pytest.approx(expected)


def test_a_straight_edge_by_hand():
    """Bands 2 r wide; a prediction that is shifted by two pixels is wrong on two columns."""
    target = np.zeros((1600, 2048), bool)
    target[:, 1000:] = True
    for radius, band in zip([1, 3, 5, 7, 9], boundary_bands(target), strict=True):
        assert np.array_equal(np.nonzero(band.all(0))[0], np.arange(1000 - radius, 1000 + radius))
        assert band.sum() == 1600 * 2 * radius
    shifted = np.roll(target, 2, axis=1)
    expected = np.mean([1 / 2, 4 / 6, 8 / 10, 12 / 14, 16 / 18])
    assert boundary_accuracy(shifted, target) == pytest.approx(expected)
    assert boundary_accuracy(target, target) == 1 and boundary_accuracy(~target, target) == 0


def test_eight_bits_are_truncated_and_above_128():
    soft = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(foreground(soft), np.arange(256) > 128)
    assert foreground(np.float32([0.5, 0.504, 0.5058, 0.506])).tolist() == [False] * 3 + [True]


def test_areas_against_a_loop():
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(200, size=(2, 30, 40)).astype(np.uint8)
    target[:5] = 255
    areas = class_areas(prediction, target, 201)
    assert areas.dtype == np.int64
    for label in range(201):
        true, said = target == label, (prediction == label) & (target != 255)
        assert areas[:, label].tolist() == [(true & said).sum(), (true | said).sum()]


# ---- the metric ----------------------------------------------------------------------------------

def mask_sample(target, refined, coarse=None):
    sample = SegDataSample(metainfo=dict(img_path='the_image.jpg'))
    for name, mask in dict(gt_mask=target, refined_mask=refined, coarse_mask=coarse).items():
        if mask is not None:
            data = torch.as_tensor(np.asarray(mask), dtype=torch.float32)[None]
            sample.set_data({name: PixelData(data=data)})
    return sample


def label_sample(target, prediction, coarse=None):
    sample = SegDataSample()
    for name, labels in dict(gt=target, pred=prediction, coarse=coarse).items():
        if labels is not None:
            data = torch.as_tensor(np.asarray(labels), dtype=torch.int64)[None]
            sample.set_data({f'{name}_sem_seg': PixelData(data=data)})
    return sample


def run(*samples, **kwargs):
    init_default_scope('mmseg')
    evaluator = Evaluator([dict(type='mmsparse.BoundaryAccuracyMetric', **kwargs)])
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def test_iou_is_pooled_and_mba_a_mean_over_images():
    """IoU 2/3 refined and 1/3 coarse in the first image, 1 and 1/6 in the second."""
    first = mask_sample([[0, 0, 1, 1]], [[0, 1, 1, 1]], [[1, 0, 0, 1]])
    second = mask_sample([[1, 1, 1, 1, 1, 1, 0]], [[1, 1, 1, 1, 1, 1, 0]],
                         [[0, 0, 0, 0, 0, 1, 0]])
    assert run(first, second) == {
        'IoU': round(100 * 8 / 9, 2), 'coarse_IoU': round(100 * 2 / 9, 2),
        'mBA': round(100 * (1 / 2 + 1) / 2, 2), 'coarse_mBA': round(100 * (1 / 2 + 1) / 2, 2),
        'skipped': 0}


def test_masks_are_cut_at_129_of_255():
    target = [[0, 128 / 255, 129 / 255, 1]]
    assert run(mask_sample(target, [[0, 0.505, 0.506, 1]])) == dict(IoU=100, mBA=100, skipped=0)
    assert run(mask_sample(target, [[0, 0.507, 0.505, 1]]))['IoU'] == round(100 / 3, 2)


def test_empty_and_full_truths_are_skipped_and_counted():
    edge = mask_sample([[0, 0, 1, 1]], [[0, 0, 0, 1]])
    empty = mask_sample([[0, 0, 0]], [[0, 0, 1]])
    full = mask_sample([[1, 1, 1]], [[1, 1, 1]])
    assert run(edge, empty, full) == dict(IoU=round(100 * 4 / 6, 2), mBA=50, skipped=2)
    assert run(empty) == dict(IoU=0, mBA=NAN, skipped=1)
    nothing = mask_sample([[0, 0, 0]], [[0, 0, 0]])
    assert run(nothing) == dict(IoU=NAN, mBA=NAN, skipped=1)


def test_label_maps():
    """The void pixel counts nowhere, class 3 does not occur. In the band: pixels 2 to 6."""
    target = [[0, 0, 0, 1, 1, 2, 2, 255]]
    perfect = [[0, 0, 0, 1, 1, 2, 2, 0]]
    coarse = [[0, 0, 1, 1, 1, 2, 2, 2]]  # pixel 2 is wrong: IoU 2/3, 2/3, 1
    assert run(label_sample(target, perfect, coarse), classes=4) == {
        'IoU': 100, 'mBA': 100, 'coarse_IoU': round(100 * 7 / 9, 2), 'coarse_mBA': 80,
        'skipped': 0}
    assert run(label_sample(target, coarse), classes=4) == {
        'IoU': round(100 * 7 / 9, 2), 'mBA': 80, 'skipped': 0}
    void = label_sample([[255, 255]], [[0, 1]])
    assert run(void, label_sample(target, coarse), classes=4) == {
        'IoU': round(100 * 7 / 9, 2), 'mBA': 80, 'skipped': 1}


def random_samples():
    rng = np.random.default_rng(0)
    return [mask_sample(*rng.integers(2, size=(3, 12, 14))) for _ in range(5)]


def evaluate_rank(rank, folder):
    """One of two processes; to fill up, the second gets the first of the five images again."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    init_default_scope('mmseg')
    samples = random_samples()
    evaluator = Evaluator([dict(type='mmsparse.BoundaryAccuracyMetric')])
    for sample in (samples[rank], samples[2 + rank], samples[4 * (1 - rank)]):
        evaluator.process([sample])
    torch.save(evaluator.evaluate(5), f'{folder}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # or its threads may abort the process at its end


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path):
    torch.multiprocessing.spawn(evaluate_rank, (str(tmp_path),), nprocs=2)
    alone = run(*random_samples())
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pt') == alone


def test_what_is_missing_or_does_not_fit_is_named():
    with pytest.raises(KeyError, match='needs refined_mask'):
        run(mask_sample([[0, 1]], None))
    with pytest.raises(KeyError, match='needs pred_sem_seg'):
        run(label_sample([[0, 1]], None), classes=2)
    with pytest.raises(ValueError, match=r'coarse_mask of the_image.jpg is \[1, 3\], .* \[1, 2\]'):
        run(mask_sample([[0, 1]], [[0, 1]], [[0, 1, 1]]))
    with pytest.raises(ValueError, match='the prediction holds 2: classes are from 0 to 1'):
        run(label_sample([[0, 1]], [[0, 2]]), classes=2)
    with pytest.raises(ValueError, match='labels: holds 3; classes are 0 to 1, and 255 is ignored'):
        run(label_sample([[0, 3]], [[0, 1]]), classes=2)
