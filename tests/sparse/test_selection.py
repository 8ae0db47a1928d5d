import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.sparse import (
    dilate,
    entropy,
    fill_mask,
    label_boundary,
    limit_mask,
    top_k_mask,
)
from tests.examples import examples
from tests.oracles import loop_entropy


@examples(60)
@given(st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=20))
def test_entropy_is_the_textbook_formula(logits):
    found = entropy(torch.tensor([logits])).item()
    assert found == pytest.approx(loop_entropy(logits), abs=2e-6)
    assert -1e-6 <= found <= math.log(len(logits)) + 1e-5


@pytest.mark.parametrize('num_classes', [2, 11, 19, 150])
def test_entropy_of_uniform_logits_is_ln_k(num_classes):
    found = entropy(torch.full((2, num_classes, 3, 4), 255.0))
    assert found.shape == (2, 3, 4)
    torch.testing.assert_close(found, torch.full((2, 3, 4), math.log(num_classes)))


def test_entropy_is_float32_whatever_comes_in():
    logits = torch.randn(1, 19, 8, 8)
    half = entropy(logits.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, entropy(logits.half().double()), atol=1e-6, rtol=0)
    with torch.autocast('cpu', torch.bfloat16):
        assert entropy(logits).dtype == torch.float32


scores = st.builds(
    lambda b, h, w, levels, seed: torch.randint(
        levels, (b, h, w), generator=torch.Generator().manual_seed(seed)).float(),
    st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 1000]),
    st.integers(0, 99))


@examples(60)
@given(score=scores, k=st.integers(0, 200))
def test_top_k_takes_exactly_k_and_the_best(score, k):
    mask = top_k_mask(score, k)
    expected = min(k, score[0].numel())
    for chosen, s in zip(mask, score, strict=True):
        assert chosen.sum() == expected
        if 0 < expected < s.numel():
            assert s[chosen].min() >= s[~chosen].max()


@examples(60)
@given(score=scores, budget=st.integers(1, 80), share=st.floats(0, 1))
def test_limit_keeps_exactly_the_budget(score, budget, share):
    mask = score / score.max().clamp(min=1) > share
    limited = limit_mask(mask, score, budget)
    assert not (limited & ~mask).any()
    for before, after, s in zip(mask, limited, score, strict=True):
        assert after.sum() == min(before.sum(), budget)
        dropped = before & ~after
        if dropped.any():
            assert s[after].min() >= s[dropped].max()


@examples(60)
@given(score=scores, least=st.integers(0, 80), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_fill_adds_the_best_valid_pixels(score, least, share, seed):
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(score.shape, generator=g) < 0.7
    mask = (score / score.max().clamp(min=1) > share) & valid
    filled = fill_mask(mask, score, least, valid)
    assert not (mask & ~filled).any() and not (filled & ~valid).any()
    for before, after, ok, s in zip(mask, filled, valid, score, strict=True):
        assert after.sum() == max(before.sum(), min(least, ok.sum()))
        added, left = after & ~before, ok & ~after
        if added.any() and left.any():
            assert s[added].min() >= s[left].max()


def test_fill_without_a_valid_mask():
    score = torch.arange(12.0).view(1, 3, 4)
    filled = fill_mask(torch.zeros(1, 3, 4, dtype=torch.bool), score, 5)
    assert torch.equal(filled, score >= 7)


maps = st.builds(
    lambda b, h, w, share, seed: torch.rand(
        b, h, w, generator=torch.Generator().manual_seed(seed)) < share,
    st.integers(1, 2), st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 99))


@examples(60)
@given(maps, st.integers(0, 20))
def test_dilation_reaches_along_rows_and_columns(mask, radius):
    expected = torch.zeros_like(mask)
    for b, y, x in mask.nonzero().tolist():
        expected[b, max(y - radius, 0):y + radius + 1, max(x - radius, 0):x + radius + 1] = True
    assert torch.equal(dilate(mask, radius), expected)


@examples(60)
@given(scores)
def test_a_boundary_has_a_neighbor_of_another_class(classes):
    expected = torch.zeros_like(classes, dtype=torch.bool)
    b, h, w = classes.shape
    for i in range(b):
        for y in range(h):
            for x in range(w):
                around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                expected[i, y, x] = any(
                    classes[i, v, u] != classes[i, y, x] for v, u in around
                    if 0 <= v < h and 0 <= u < w)
    assert torch.equal(label_boundary(classes), expected)
