import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.sparse import UpsampledLogits, entropy
from tests.examples import examples

sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))


def dense(scores, size, mode, probabilities=False, aligned=False):
    kwargs = dict(mode=mode, align_corners=aligned) if mode == 'bilinear' else dict(
        mode='nearest-exact')
    full = F.interpolate(scores, size=size, **kwargs)
    return full.clamp(min=1e-10).log() if probabilities else full


@examples(80)
@given(low=sizes, full=sizes, mode=st.sampled_from(['nearest', 'bilinear']),
       probabilities=st.booleans(), aligned=st.booleans(), seed=st.integers(0, 99))
def test_equals_the_full_size_map(low, full, mode, probabilities, aligned, seed):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 4, *low, generator=g)
    scores = scores.softmax(1) if probabilities else scores * 3
    expected = dense(scores, full, mode, probabilities, aligned)
    found = UpsampledLogits(scores, full, mode=mode, probabilities=probabilities,
                            align_corners=aligned)
    torch.testing.assert_close(found.full(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.entropy(), entropy(expected), atol=1e-4, rtol=1e-4)
    for k in range(4):
        torch.testing.assert_close(found.channel(k), expected[:, k], atol=1e-4, rtol=1e-4)
    indices = torch.ones(2, *full).nonzero().int()
    torch.testing.assert_close(
        found.at(indices), expected.permute(0, 2, 3, 1).flatten(0, 2), atol=1e-4, rtol=1e-4)
    top = expected.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    assert torch.equal(found.classes()[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
@pytest.mark.parametrize(('low', 'size'), [
    ((60, 70), (96, 200)), ((60, 70), (129, 130)), ((60, 70), (500, 64)), ((250, 203), (333, 406))])
def test_bands_join_without_a_seam(low, size, mode):
    """What is computed part by part, to stay in cache."""
    scores = torch.randn(2, 19, *low)
    found, expected = UpsampledLogits(scores, size, mode=mode), dense(scores, size, mode)
    torch.testing.assert_close(found.entropy(), entropy(expected), atol=1e-4, rtol=1e-4)
    assert (found.classes() == expected.argmax(1)).float().mean() > 0.9999


def test_of_equal_scores_the_first_class_is_taken():
    scores = torch.randint(3, (1, 19, 40, 50)).float()
    assert torch.equal(UpsampledLogits(scores, (40, 50), mode='nearest').classes(),
                       torch.from_numpy(scores.numpy().argmax(1)))


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_full_at_equal_size_is_a_copy_bit_for_bit(mode):
    scores = torch.randn(1, 5, 8, 9)
    full = UpsampledLogits(scores, (8, 9), mode=mode).full()
    assert torch.equal(full, scores)
    full.zero_()
    assert scores.abs().sum() > 0, 'writing into the result must not change the source'


def test_nearest_never_computes_at_full_size(monkeypatch):
    """Entropy is evaluated on h x w pixels, not on H x W."""
    seen = []
    scores = torch.randn(1, 3, 4, 5)
    UpsampledLogits(scores, (40, 50), mode='nearest').per_pixel(
        lambda z: seen.append(z.shape) or z.argmax(1), torch.int64)
    assert seen == [scores.shape]


def test_unknown_mode():
    with pytest.raises(ValueError, match="one of .*got 'bicubic'"):
        UpsampledLogits(torch.zeros(1, 2, 2, 2), (4, 4), mode='bicubic')
