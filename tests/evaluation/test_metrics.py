"""The metrics beside IoUMetric: by hand, and in one evaluation of a refining model."""
import math

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

from mmsparse.evaluation import selection_counts
from mmsparse.evaluation.size import areas_by_size
from mmsparse.registry import METRICS
from tests.models.tiny import batch, build_refine

META = dict(classes=tuple('abcde'))
NAN = pytest.approx(math.nan, nan_ok=True)


def field(values, dtype=torch.int64):
    return dict(data=torch.tensor([values], dtype=dtype))


def run(metric, *samples, classes='ab', **kwargs):
    metric = METRICS.build(dict(type=f'mmsparse.{metric}', **kwargs))
    metric.dataset_meta = dict(classes=tuple(classes))
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def test_selection_counts_by_hand():
    counted = selection_counts(
        torch.tensor([[True, True, False, False, True]]), torch.tensor([[0, 1, 1, 0, 1]]),
        torch.tensor([[1, 1, 1, 1, 255]]))
    assert counted.tolist() == [1, 2, 2, 4]


def test_selector_metric_sums_over_images():
    first = dict(low_res_sem_seg=field([[0, 1, 1, 0, 1]]), gt_sem_seg=field([[1, 1, 1, 1, 255]]),
                 selected=field([[1, 1, 0, 0, 1]], torch.bool))
    second = dict(low_res_sem_seg=field([[0, 0]]), gt_sem_seg=field([[0, 0]]),
                  selected=field([[0, 1]], torch.bool))
    figures = run('SelectorMetric', first, second)
    assert figures == {'selector/recall': 50, 'selector/precision': 33.33, 'selector/density': 50}
    only = run('SelectorMetric', second)  # nothing wrong: no recall to speak of
    assert only == {'selector/recall': NAN, 'selector/precision': 0, 'selector/density': 50}


def test_selector_metric_reports_the_threshold_of_a_budget():
    sample = dict(low_res_sem_seg=field([[0]]), gt_sem_seg=field([[1]]),
                  selected=field([[1]], torch.bool))
    figures = run('SelectorMetric', sample | dict(selection_threshold=0.2),
                  sample | dict(selection_threshold=0.4))
    assert figures['selector/threshold'] == pytest.approx(0.3)


@pytest.mark.parametrize('metric', ['SelectorMetric', 'LowResIoUMetric'])
def test_a_model_without_refinement_is_named(metric):
    sample = dict(pred_sem_seg=field([[0]]), gt_sem_seg=field([[0]]))
    with pytest.raises(KeyError, match='SparseRefineSegmentor'):
        run(metric, sample)


def test_areas_by_size_against_a_loop():
    g = torch.Generator().manual_seed(0)
    label = torch.randint(5, (40, 50), generator=g)
    label[:, 5:] = 4
    label[:2] = 255
    pred = torch.where(torch.rand(40, 50, generator=g) < 0.7, label, 1).clamp(max=4)
    found = areas_by_size(pred, label, 6, (0.02, 0.5))
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    known = label != 255
    for k in range(6):
        true, said = (label == k) & known, (pred == k) & known
        if true.any():
            share = true.sum() / known.sum()
            size = 0 if share < 0.02 else 1 if share < 0.5 else 2
            expected[:, size, k] = torch.stack([(true & said).sum(), (true | said).sum()])
    assert torch.equal(found, expected)
    assert (expected.sum((0, 2)) > 0).sum() >= 2, 'the case has several sizes'


def test_iou_by_size_before_and_after():
    label = [[0] * 19 + [1]]
    sample = dict(gt_sem_seg=field(label), pred_sem_seg=field(label),
                  low_res_sem_seg=field([[0] * 20]))
    figures = run('IoUBySizeMetric', sample, limits=(0.1, 0.5))
    assert figures == {
        'size/small': 100, 'size/medium': NAN, 'size/large': 100,
        'size/low_res_small': 0, 'size/low_res_medium': NAN, 'size/low_res_large': 95}
    plain = run('IoUBySizeMetric', {k: v for k, v in sample.items() if 'low' not in k})
    assert 'size/large' in plain and 'size/low_res_large' not in plain


@pytest.mark.parametrize('limits', [(0.1,), (0.2, 0.1), (0, 0.1), (0.1, 1)])
def test_bad_limits(limits):
    with pytest.raises(ValueError, match='two increasing shares'):
        run('IoUBySizeMetric', limits=limits)


def test_a_dataset_without_classes_is_named():
    sample = dict(gt_sem_seg=field([[0, 1]]), pred_sem_seg=field([[0, 1]]))
    with pytest.raises(ValueError, match='needs the classes of the dataset'):
        run('IoUBySizeMetric', sample, classes='')


def test_one_evaluation_shows_it_all():
    """Beside mmseg's metric, on what the model predicts; low-resolution mIoU is the segmentor's."""
    init_default_scope('mmseg')
    model = build_refine(alpha=1.1, test_cfg=dict(mode='whole', seg_logits=False))
    evaluator = Evaluator([
        dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='mmsparse.LowResIoUMetric'),
        dict(type='mmsparse.SelectorMetric'), dict(type='mmsparse.IoUBySizeMetric')])
    evaluator.dataset_meta = META
    data = batch(model, 2)
    with torch.no_grad():
        evaluator.process(model(**data, mode='predict'), data)
        figures = evaluator.evaluate(2)
        alone = Evaluator([dict(type='IoUMetric', iou_metrics=['mIoU'])])
        alone.dataset_meta = META
        model.selector.threshold = 9
        again = batch(model, 2)
        alone.process(model(**again, mode='predict'), again)
    assert figures['low_res/mIoU'] == alone.evaluate(2)['mIoU'] != figures['mIoU']
    for name in ('selector/recall', 'selector/density', 'size/small', 'size/low_res_large'):
        assert name in figures
    assert 0 < figures['selector/density'] < 100
