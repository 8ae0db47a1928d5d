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
        total += 1 - (2 * shared + eps) / (said + true + eps)
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
    assert logits.grad[ignored:].abs().sum() > 0 or ignored == 30


def test_a_perfect_prediction_costs_nothing():
    labels = torch.arange(4).repeat(5)
    logits = torch.nn.functional.one_hot(labels, 4).float() * 100
    assert MODELS.build(dict(type='mmsparse.PointDiceLoss'))(logits, labels) < 1e-6
