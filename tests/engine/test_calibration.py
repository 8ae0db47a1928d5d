"""Every threshold at once, against the selector itself at that threshold."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample

from mmsparse.engine.calibration import ScoreCurve, candidate_thresholds, plot, score_curve
from mmsparse.engine.latency import TimeModel, measure_times
from mmsparse.evaluation import selection_counts
from mmsparse.preprocessing import valid_mask
from tests.models.tiny import batch, build_refine


def raw_batches(model, count=3, **kwargs):
    """As a dataloader gives them."""
    for seed in range(count):
        data = batch(model, 1, seed=seed, **kwargs)
        for sample in data['data_samples']:
            sample.gt_sem_seg.data[:, 40:, 40:] = 255
        yield dict(inputs=[torch.randint(256, (3, 96, 101), dtype=torch.uint8,
                                         generator=torch.Generator().manual_seed(seed))],
                   data_samples=data['data_samples'])


def test_candidates_are_three_digit_numbers():
    values = candidate_thresholds(2.9444).tolist()
    assert values[0] == 0 and values[1] == 1e-4 and values[-1] == 2.94
    assert values == sorted(values) and {0.005, 0.3, 0.305, 1.23} <= set(values)
    assert all(float(f'{v:.3g}') == v for v in values)
    assert candidate_thresholds(1.0)[-1] == 1.0


@pytest.mark.parametrize('selector', [
    dict(type='mmsparse.EntropySelector', alpha=0.7), dict(type='mmsparse.LearnableSelector')])
def test_curve_is_what_the_selector_does_at_each_threshold(selector):
    model = build_refine(selector=selector)
    curve = score_curve(model, raw_batches(model))
    for index in range(0, len(curve.thresholds), 397):
        model.selector.threshold = float(curve.thresholds[index])
        counts = torch.zeros(4, dtype=torch.float64)
        with torch.no_grad():
            for data in raw_batches(model):
                sample, = model.test_step(data)
                counts += selection_counts(sample.selected.data[0], sample.low_res_sem_seg.data[0],
                                           sample.gt_sem_seg.data[0])
        hit, chosen, wrong, valid = counts
        assert curve.recall()[index] == hit / wrong
        assert curve.density()[index] == chosen / valid
        if chosen:
            assert curve.precision()[index] == hit / chosen
        assert curve.error_rate() == pytest.approx(float(wrong / valid))


class PixelByPixel:
    """Stands for a model that decides each pixel by its own color, whatever is beside it."""

    num_classes, ignore_index = 2, 255

    def __init__(self, **padding):
        self.data_preprocessor = MMSEG_MODELS.build(
            dict(type='SegDataPreProcessor', test_cfg=padding or None))
        self.selector = SimpleNamespace(highest_score=1.0, score=lambda x, low: x[:, 0] / 255)

    def low_logits(self, inputs, samples):
        return SimpleNamespace(classes=lambda: (inputs[:, 1] > 99).long())

    def valid(self, inputs, low, placements):
        return valid_mask(placements, inputs)


@pytest.mark.parametrize('padding', [dict(size=(130, 144)), dict(size_divisor=32)])
def test_padding_moves_no_label(padding):
    """An image that the preprocessor pads counts what the image alone counts."""
    def data():
        g = torch.Generator().manual_seed(0)
        sample = SegDataSample(metainfo=dict(ori_shape=(48, 51), img_shape=(96, 102)))
        sample.gt_sem_seg = PixelData(data=torch.randint(2, (1, 48, 51), generator=g))
        return [dict(inputs=[torch.randint(256, (3, 96, 102), generator=g, dtype=torch.uint8)],
                     data_samples=[sample])]

    plain, padded = (score_curve(PixelByPixel(**p), data()) for p in ({}, padding))
    assert torch.equal(plain.wrong, padded.wrong) and torch.equal(plain.right, padded.right)
    assert plain.wrong.sum() + plain.right.sum() == 96 * 102


def simple():
    curve = ScoreCurve.empty(torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64))
    score = torch.tensor([0.05, 0.15, 0.2, 0.25, 0.35, 0.35])
    wrong = torch.tensor([False, False, True, True, True, True])
    curve.count(score, wrong, torch.tensor([True] * 5 + [False]))
    return curve


def test_choice_by_hand():
    curve = simple()
    assert curve.recall().tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert curve.density().tolist() == pytest.approx([1, .8, .4, .2])
    assert curve.precision().tolist() == pytest.approx([.6, .75, 1, 1])
    assert curve.thresholds[curve.for_recall(0.6)] == 0.2
    assert curve.thresholds[curve.for_recall(1.0)] == 0.1
    assert curve.thresholds[curve.for_density(0.5)] == 0.2
    assert curve.thresholds[curve.for_density(0.39)] == 0.3


def test_what_cannot_be_reached_is_said():
    for choose in (ScoreCurve.for_recall, ScoreCurve.for_density):
        with pytest.raises(ValueError, match='no pixel has a label: all are ignored'):
            choose(ScoreCurve.empty(torch.tensor([0.0])), 0.5)
    curve = ScoreCurve.empty(torch.tensor([0.0]))
    curve.count(torch.tensor([0.5]), torch.tensor([False]), torch.tensor([True]))
    with pytest.raises(ValueError, match='no low-resolution pixel is wrong'):
        curve.for_recall(0.5)
    with pytest.raises(ValueError, match=r'no threshold selects as little as 0.9 .*at 0 it is 1.0'):
        curve.for_density(0.9)
    curve = ScoreCurve.empty(torch.tensor([0.0, 0.1]))
    curve.count(torch.tensor([0.0, 0.5]), torch.tensor([True, True]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match=r'no threshold reaches a recall of 0.8; at 0.0 it is 0.5'):
        curve.for_recall(0.8)


def test_plot_marks_the_choice():
    figure = plot(simple(), 2, 'alpha')
    assert figure.axes[0].get_title() == 'alpha = 0.2'


# ---- Time ----


def test_the_shares_of_images_are_what_the_selector_selects():
    model = build_refine()
    curve = score_curve(model, raw_batches(model))
    assert len(curve.shares) == 3
    for index in (0, 800, 1500):
        model.selector.threshold = float(curve.thresholds[index])
        with torch.no_grad():
            for data, shares in zip(raw_batches(model), curve.shares, strict=True):
                sample, = model.test_step(data)
                assert shares[index] == pytest.approx(float(sample.selected.data.float().mean()))


def test_times_lie_on_lines_between_the_measured_ones():
    times = TimeModel([0.0, 0.1, 0.3], [50.0, 70.0, 100.0])
    share = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    assert times.at(share).tolist() == pytest.approx([50, 60, 70, 85, 100, 130, 205])


def test_a_budget_by_hand():
    """Of twenty images the slowest may be over it: thresholds 0, 1, 2 refine less and less."""
    curve = ScoreCurve.empty(torch.tensor([0.0, 1.0, 2.0]))
    curve.shares = [torch.tensor([0.4, 0.2, 0.0])] * 19 + [torch.tensor([0.9, 0.8, 0.0])]
    times = TimeModel([0.0, 1.0], [100.0, 1100.0])
    assert times.choose(curve, 2000)[0] == 0
    number, p50, p95 = times.choose(curve, 350)
    assert (number, p50) == (1, pytest.approx(300)) and 300 < p95 < 350
    assert times.choose(curve, 299)[0] == 2
    with pytest.raises(ValueError, match='no threshold keeps a budget of 99 ms: .* takes 100 ms'):
        times.choose(curve, 99)


def test_times_are_measured_at_the_shares_asked_for():
    model = build_refine()
    curve, before = score_curve(model, raw_batches(model)), model.selector.threshold
    times = measure_times(model, curve, list(raw_batches(model, count=2)), repeats=1)
    assert model.selector.threshold == before
    assert list(times.shares) == sorted(times.shares) and times.shares[0] == 0
    assert 0.3 < times.shares[-1] < 0.5 and min(times.milliseconds) > 0
