import math
import warnings

import pytest
import torch

from mmsparse.registry import MODELS
from mmsparse.sparse import UpsampledLogits, entropy


def build(kind='EntropySelector', num_classes=5, **kwargs):
    return MODELS.build(dict(type=f'mmsparse.{kind}', num_classes=num_classes, **kwargs)).eval()


def low_logits(mode='nearest', seed=0):
    g = torch.Generator().manual_seed(seed)
    return UpsampledLogits(torch.randn(2, 5, 24, 25, generator=g) * 3, (48, 50), mode=mode)


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
def test_entropy_selector_is_a_strict_threshold(mode, alpha):
    logits = low_logits(mode)
    mask = build(alpha=alpha)(torch.zeros(2, 3, 48, 50), logits).mask
    expected = entropy(logits.full()) > alpha
    # off only where float rounding decides
    assert (mask != expected).float().mean() < 1e-3
    assert 0 < mask.float().mean() <= 1


def test_entropy_exactly_at_alpha_is_not_selected():
    logits = UpsampledLogits(torch.zeros(1, 5, 2, 2), (4, 4), mode='nearest')
    exact = logits.entropy().max().item()
    assert not build(alpha=exact)(torch.zeros(1, 3, 4, 4), logits).mask.any()
    assert build(alpha=math.nextafter(exact, 0) - 1e-6)(torch.zeros(1, 3, 4, 4), logits).mask.all()


def test_padding_is_never_selected():
    valid = torch.zeros(2, 48, 50, dtype=torch.bool)
    valid[:, :20] = True
    image = torch.zeros(2, 3, 48, 50)
    for selector in (build(alpha=0.0), build(alpha=0.0, min_points=1500).train(),
                     build('LearnableSelector', threshold=0.01)):
        mask = selector(image, low_logits(), valid).mask
        assert mask[valid].any() and not mask[~valid].any()


def counts(selection):
    return selection.mask.flatten(1).sum(1).tolist()


def test_minimum_is_exact_per_image_and_for_training_only():
    image, logits = torch.zeros(2, 3, 48, 50), low_logits()
    fill = build(alpha=1.6, min_points=33)
    assert not fill(image, logits).mask.any()
    assert counts(fill.train()(image, logits)) == [33, 33]


@pytest.mark.parametrize('kind', ['EntropySelector', 'LearnableSelector'])
@pytest.mark.parametrize('budget, kept', [
    (dict(max_points=77), 77), (dict(max_density=0.1), 240), (dict(max_density=1e-9), 0),
    (dict(max_points=77, max_density=0.1), 77), (dict(max_points=300, max_density=0.1), 240)])
def test_budget_keeps_exactly_the_highest_scores_of_each_image(kind, budget, kept):
    image, logits = torch.randn(2, 3, 48, 50), low_logits()
    low = dict(alpha=0.0) if kind == 'EntropySelector' else dict(threshold=1e-6)
    selector = build(kind, **low, **budget)
    selection = selector(image, logits)
    assert counts(selection) == [kept, kept]
    score = selector.score(image, logits)
    for mask, s, threshold in zip(selection.mask, score, selection.threshold, strict=True):
        assert not kept or s[mask].min() >= s[~mask].max()
        assert threshold == (s[mask].min() if kept else math.inf)


def test_budget_leaves_images_within_it_alone_and_reports_their_alpha():
    scores = torch.zeros(2, 5, 24, 25)  # uniform: every pixel of the first image is selected
    scores[1, 0, :, 5:] = 50  # sure of all but a fifth of the second
    logits, image = UpsampledLogits(scores, (48, 50), mode='nearest'), torch.zeros(2, 3, 48, 50)
    selection = build(alpha=0.3, max_density=0.25)(image, logits)
    assert counts(selection) == [600, 480]
    torch.testing.assert_close(selection.threshold, torch.tensor([math.log(5), 0.3]))
    assert build(alpha=0.3)(image, logits).threshold is None


def test_density_is_a_share_of_the_image_without_padding():
    valid = torch.zeros(2, 48, 50, dtype=torch.bool)
    valid[0, :24], valid[1, :12] = True, True
    selection = build(alpha=0.0, max_density=0.1)(torch.zeros(2, 3, 48, 50), low_logits(), valid)
    assert counts(selection) == [120, 60] and not selection.mask[~valid].any()


@pytest.mark.parametrize('share', [0, -0.1, 1.1, float('nan')])
def test_bad_density(share):
    with pytest.raises(ValueError, match='max_density must be a share'):
        build(alpha=0.3, max_density=share)


def test_a_misspelled_budget_is_refused():
    with pytest.raises(TypeError, match='max_pionts'):
        build(alpha=0.3, max_pionts=3)


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
    """Convolutions on the image, then linear layers on every pixel of logits + image features."""
    torch.manual_seed(0)
    selector, image, logits = build('LearnableSelector'), torch.randn(2, 3, 48, 50), low_logits()
    stem, mlp = selector.stem, selector.classifier
    features = torch.cat([logits.full(), stem(image)], 1).permute(0, 2, 3, 1)
    for layer in mlp:
        if isinstance(layer, torch.nn.Conv2d):
            features = features @ layer.weight[:, :, 0, 0].T + layer.bias
        else:
            features = features.relu()
    torch.testing.assert_close(
        selector.log_odds(image, logits), features[..., 0], atol=1e-5, rtol=1e-5)
    score = selector.score(image, logits)
    torch.testing.assert_close(score, features[..., 0].sigmoid(), atol=1e-5, rtol=1e-5)
    assert torch.equal(selector(image, logits).mask, score > 0.5)


def test_learnable_selector_learns_where_the_prediction_is_wrong():
    torch.manual_seed(0)
    selector, logits = build('LearnableSelector').train(), low_logits()
    image = torch.zeros(2, 3, 48, 50)
    image[:, :, :, 25:] = 1
    labels = logits.classes()
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
    assert (selector.eval()(image, logits).mask == wrong).float().mean() > 0.9


def test_learnable_selector_without_labels_has_zero_loss():
    selector, labels = build('LearnableSelector'), torch.full((2, 48, 50), 255)
    loss = selector.loss(torch.randn(2, 3, 48, 50), low_logits(), labels)['loss_selector']
    loss.backward()
    assert loss == 0 and all(p.grad is not None for p in selector.parameters())


def test_boundary_selector_joins_uncertain_pixels_and_contours():
    logits = low_logits()
    image = torch.zeros(2, 3, 48, 50)
    selector = build('BoundarySelector', alpha=0.9, radius=0.02)  # 2 pixels of 48 + 50
    classes, near = logits.full().argmax(1), torch.zeros(2, 48, 50, dtype=torch.bool)
    for b in range(2):
        for y in range(48):
            for x in range(50):
                for v, u in ((y + 1, x), (y, x + 1)):
                    if v < 48 and u < 50 and classes[b, v, u] != classes[b, y, x]:
                        for s, t in ((y, x), (v, u)):
                            near[b, max(s - 2, 0):s + 3, max(t - 2, 0):t + 3] = True
    expected = near | (logits.entropy() > 0.9)
    assert torch.equal(selector(image, logits).mask, expected)
    score = selector.score(image, logits)
    assert (score[near] == math.log(5)).all()
    torch.testing.assert_close(score[~near], logits.entropy()[~near])


def test_the_default_of_two_classes_is_a_probability_within_0_4_of_a_half():
    p = torch.linspace(0.001, 0.999, 999)[None, None]
    z = torch.stack([torch.zeros_like(p), p.logit()], 1)
    mask = MODELS.build(dict(type='mmsparse.BoundarySelector', radius=0.0)).above(
        None, UpsampledLogits(z, (1, 999), mode='nearest'))
    expected = (p - 0.5).abs() < 0.4
    assert (mask != expected).sum() <= 2


def test_a_radius_is_a_share():
    with pytest.raises(ValueError, match='BoundarySelector.radius must be a share'):
        build('BoundarySelector', radius=3)
