"""Dice on single pixels, against the formula in plain Python."""
import pytest
import torch

from mmsparse.registry import MODELS


def dice(logits, labels, eps=1e-5):
    p = logits.double().softmax(1).tolist()
    classes = len(p[0])
    total = 0
    for k in range(classes):
        shared = said = true = 0.0
        for row, label in zip(p, labels.tolist(), strict=True):
            if label != 255:
                shared += row[k] * (label == k)
                said += row[k]
                true += label == k
        total += 1 - 2 * shared / (said + true + eps)
    return total / classes


@pytest.mark.parametrize('ignored', [0, 7, 30])
def test_against_loops(ignored):
    logits = torch.randn(30, 4, requires_grad=True)
    labels = torch.randint(4, (30,))
    labels[:ignored] = 255
    loss = MODELS.build(dict(type='mmsparse.PointDiceLoss', loss_weight=2.0))(logits, labels)
    assert loss.item() == pytest.approx(2 * dice(logits, labels), abs=1e-6)
    loss.backward()
    assert (logits.grad[:ignored] == 0).all()
    assert (logits.grad.abs().sum() > 0) == (ignored < 30)


def test_a_class_without_labels_costs_one_and_teaches_nothing_of_its_own():
    """Whatever is predicted of it: the others alone, averaged over all classes, plus a constant."""
    logits = torch.randn(30, 4, dtype=torch.float64)
    logits[:, 3] -= 12  # about 1e-5 of each pixel: the sum is of the size of eps
    labels = torch.randint(3, (30,))
    p = logits.requires_grad_().softmax(1)
    others = sum(1 - 2 * p[labels == k, k].sum() / (p[:, k].sum() + (labels == k).sum() + 1e-5)
                 for k in range(3))
    loss = MODELS.build(dict(type='mmsparse.PointDiceLoss'))(logits, labels)
    assert loss.item() == pytest.approx((others.item() + 1) / 4, abs=1e-6)
    found, = torch.autograd.grad(loss, logits, retain_graph=True)
    expected, = torch.autograd.grad(others / 4, logits)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_a_perfect_prediction_costs_nothing():
    labels = torch.arange(4).repeat(5)
    logits = torch.nn.functional.one_hot(labels, 4).float() * 100
    assert MODELS.build(dict(type='mmsparse.PointDiceLoss'))(logits, labels) < 1e-6
