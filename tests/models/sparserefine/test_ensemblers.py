import pytest
import torch

from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap, entropy


def build(kind, num_classes=19):
    return MODELS.build(dict(type=f'mmsparse.{kind}', num_classes=num_classes))


@pytest.mark.parametrize('num_classes', [2, 19, 150])
def test_parameter_counts(num_classes):
    gated = sum(p.numel() for p in build('GatedEnsembler', num_classes).parameters())
    assert gated == 257 * num_classes + 386
    assert not list(build('EntropyEnsembler', num_classes).parameters())
    selector = MODELS.build(dict(type='mmsparse.LearnableSelector', num_classes=num_classes))
    assert sum(p.numel() for p in selector.parameters()) == 32 * num_classes + 4401


@pytest.mark.parametrize(('stages', 'total'), [(5, 19_817_384), (6, 79_340_456)])
def test_refiner_total_on_cityscapes(stages, total):
    head = MODELS.build(dict(
        type='mmsparse.SparseRefineHead', num_classes=19,
        extractor=dict(type='mmsparse.SparseUNet',
                       channels=(32, 64, 128, 256, 512, 1024)[:stages])))
    assert sum(p.numel() for p in head.parameters()) == total
    assert sum(p.numel() for p in head.classifier.parameters()) == 33 * 19 == 627


def test_gate_is_the_sigmoid_of_the_difference():
    torch.manual_seed(0)
    gated, low, refined = build('GatedEnsembler'), torch.randn(50, 19), torch.randn(50, 19) * 3
    inputs = torch.cat([low.softmax(1), entropy(low)[:, None],
                        refined.softmax(1), entropy(refined)[:, None]], 1)
    z = gated.gate(inputs)
    weights = gated.weights(low, refined)
    torch.testing.assert_close(weights[:, 0], (z[:, 0] - z[:, 1]).sigmoid())
    torch.testing.assert_close(weights.sum(1), torch.ones(50))
    mix = weights[:, :1] * low + (1 - weights[:, :1]) * refined
    torch.testing.assert_close(gated(low, refined), gated.classifier(mix))


def test_entropy_ensembler_keeps_the_surer_logits_row_by_row():
    torch.manual_seed(0)
    low, refined = torch.randn(40, 5) * 3, torch.randn(40, 5) * 3
    out = build('EntropyEnsembler', 5)(low, refined)
    for row, a, b in zip(out, low, refined, strict=True):
        surer = entropy(b[None]) - entropy(a[None])
        assert surer.abs() > 1e-4, 'no case for rounding to decide'
        assert torch.equal(row, a if surer > 0 else b)


def test_entropy_ensembler_ties_go_to_the_refined_logits():
    low = torch.tensor([[1.0, 2.0, 3.0]])
    refined = low + 1  # the same differences from the largest, so the same entropy to the last bit
    assert torch.equal(build('EntropyEnsembler', 3)(low, refined), refined)


@pytest.mark.parametrize('n', [1, 4096, 10_000])
@torch.no_grad()
def test_prediction_in_parts_is_that_of_all_pixels(n):
    torch.manual_seed(0)
    head = MODELS.build(dict(
        type='mmsparse.SparseRefineHead', num_classes=5,
        extractor=dict(type='mmsparse.SparseUNet', channels=(4, 8)))).eval()
    mask = torch.zeros(1, 100 * 130, dtype=torch.bool)
    mask[:, torch.randperm(mask.numel())[:n]] = True
    pixels = SparseMap.from_mask(torch.randn(1, 3, 100, 130), mask.view(1, 100, 130))
    low = torch.randn(n, 5)
    torch.testing.assert_close(head.predict(pixels, low), head(pixels, low)[1])
