"""Metrics of what a refinement started from, and of the most that it can become."""
import pytest
import torch

from mmsparse.evaluation import LowResIoUMetric, SelectionLimitIoUMetric

CLASSES = 3


def miou(pred, label):
    """By loops over the classes."""
    known = label != 255
    shares = []
    for k in range(CLASSES):
        a, b = (pred == k) & known, (label == k) & known
        shares.append((a & b).sum().item() / (a | b).sum().item())
    return 100 * sum(shares) / CLASSES


def test_before_and_at_most():
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(0, CLASSES, (1, 40, 50), generator=rng)
    label[:, :5] = 255
    low = torch.where(torch.rand(label.shape, generator=rng) < 0.5, label % CLASSES, 1)
    selected = torch.rand(label.shape, generator=rng) < 0.4
    best = low.clone()
    for y, x in selected[0].nonzero().tolist():
        best[0, y, x] = label[0, y, x]
    sample = dict(gt_sem_seg=dict(data=label), low_res_sem_seg=dict(data=low),
                  selected=dict(data=selected), pred_sem_seg=dict(data=torch.zeros_like(low)))
    results = {}
    for kind in (LowResIoUMetric, SelectionLimitIoUMetric):
        metric = kind()
        metric.dataset_meta = dict(classes=tuple('abc'))
        metric.process({}, [sample])
        results |= metric.evaluate(1)
    assert results['low_res/mIoU'] == pytest.approx(miou(low, label), abs=0.01)
    assert results['limit/mIoU'] == pytest.approx(miou(best, label), abs=0.01)
    assert results['limit/mIoU'] > results['low_res/mIoU'] + 5


def test_a_model_without_refinement_is_named():
    for kind in (LowResIoUMetric, SelectionLimitIoUMetric):
        with pytest.raises(KeyError, match=f'{kind.__name__} needs low_res_sem_seg'):
            kind().process({}, [dict(pred_sem_seg=dict(data=torch.zeros(1, 2, 2)))])
