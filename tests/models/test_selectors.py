import math
import warnings

import pytest
import torch

from mmsparse.models import UpsampledLogits
from mmsparse.registry import MODELS
from mmsparse.sparse import entropy


def build(kind='EntropySelector', num_classes=5, **kwargs):
    return MODELS.build(dict(type=f'mmsparse.{kind}', num_classes=num_classes, **kwargs)).eval()


def low_logits(mode='nearest', seed=0):
    g = torch.Generator().manual_seed(seed)
    return UpsampledLogits(torch.randn(2, 5, 24, 25, generator=g) * 3, (48, 50), mode=mode)


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
def test_entropy_selector_is_a_strict_threshold(mode, alpha):
    logits = low_logits(mode)
    mask = build(alpha=alpha)(torch.zeros(2, 3, 48, 50), logits)
    expected = entropy(logits.full()) > alpha
    # off only where float rounding decides
    assert (mask != expected).float().mean() < 1e-3
    assert 0 < mask.float().mean() <= 1


def test_entropy_exactly_at_alpha_is_not_selected():
    logits = UpsampledLogits(torch.zeros(1, 5, 2, 2), (4, 4), mode='nearest')
    exact = logits.entropy().max().item()
    assert not build(alpha=exact)(torch.zeros(1, 3, 4, 4), logits).any()
    assert build(alpha=math.nextafter(exact, 0) - 1e-6)(torch.zeros(1, 3, 4, 4), logits).all()


def test_padding_is_never_selected():
    valid = torch.zeros(2, 48, 50, dtype=torch.bool)
    valid[:, :20] = True
    image = torch.zeros(2, 3, 48, 50)
    for selector in (build(alpha=0.0), build(alpha=0.0, min_points=1500).train(),
                     build('LearnableSelector', threshold=0.01)):
        mask = selector(image, low_logits(), valid)
        assert mask[valid].any() and not mask[~valid].any()


def test_budget_and_minimum_are_exact_per_image():
    image, logits = torch.zeros(2, 3, 48, 50), low_logits()
    assert build(alpha=0.0, max_points=77)(image, logits).flatten(1).sum(1).tolist() == [77, 77]
    fill = build(alpha=1.6, min_points=33)
    assert not fill(image, logits).any(), 'the minimum is for training only'
    assert fill.train()(image, logits).flatten(1).sum(1).tolist() == [33, 33]


@pytest.mark.parametrize('alpha', [-0.1, float('nan'), -float('inf')])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match='alpha must be a number >= 0'):
        build(alpha=alpha)


def test_alpha_at_ln_k_warns_and_below_does_not():
    with pytest.warns(UserWarning, match='ln 5 = 1.6094.*no pixel will ever be selected'):
        build(alpha=1.61)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build(alpha=1.60)


@pytest.mark.parametrize('kwargs', [
    dict(min_points=-1), dict(max_points=0), dict(min_points=10, max_points=5)])
def test_bad_point_counts(kwargs):
    with pytest.raises(ValueError, match='min_points <= max_points'):
        build(alpha=0.3, **kwargs)


@pytest.mark.parametrize('threshold', [0, 1, -1, float('nan')])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match='threshold must be a probability'):
        build('LearnableSelector', threshold=threshold)


def test_learnable_selector_is_the_papers_network():
    """Convolutions on the image, then linear layers on every pixel of image features + logits."""
    torch.manual_seed(0)
    selector, image, logits = build('LearnableSelector'), torch.randn(2, 3, 48, 50), low_logits()
    stem, mlp = selector.stem, selector.classifier
    features = torch.cat([stem(image), logits.full()], 1).permute(0, 2, 3, 1)
    for layer in mlp:
        if isinstance(layer, torch.nn.Conv2d):
            features = features @ layer.weight[:, :, 0, 0].T + layer.bias
        else:
            features = features.relu()
    score = selector.score(image, logits)
    torch.testing.assert_close(score, features[..., 0], atol=1e-5, rtol=1e-5)
    assert torch.equal(selector(image, logits), score.sigmoid() > 0.5)


def test_learnable_selector_learns_where_the_prediction_is_wrong():
    torch.manual_seed(0)
    selector, logits = build('LearnableSelector').train(), low_logits()
    image = torch.zeros(2, 3, 48, 50)
    image[:, :, :, 25:] = 1
    labels = logits.argmax()
    labels[:, :, 25:] = (labels[:, :, 25:] + 1) % 5  # the bright half is wrong
    labels[:, :2] = 255
    optimizer = torch.optim.Adam(selector.parameters(), 0.03)
    losses = []
    for _ in range(40):
        loss = selector.loss(image, logits, labels)['loss_selector']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    wrong = torch.zeros(2, 48, 50, dtype=torch.bool)
    wrong[:, :, 25:] = True
    assert (selector.eval()(image, logits) == wrong).float().mean() > 0.9


def test_learnable_selector_without_labels_has_zero_loss():
    selector, labels = build('LearnableSelector'), torch.full((2, 48, 50), 255)
    loss = selector.loss(torch.randn(2, 3, 48, 50), low_logits(), labels)['loss_selector']
    loss.backward()
    assert loss == 0 and all(p.grad is not None for p in selector.parameters())
