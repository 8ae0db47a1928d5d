"""CRM gives what the authors' code gave, and starts training as theirs does."""
import importlib
import math
import zlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.datasets.transforms.mask_refine import mask_iou, perturb_mask, simplify_contours
from mmsparse.evaluation.boundary_mba import (
    BoundaryAccuracyMetric,
    boundary_accuracy,
    class_areas,
    foreground,
)
from mmsparse.models.crm.refiner import all_pixels
from mmsparse.models.crm.sampling import whole
from tests import authors

CONFIG = 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'
VOC = 'configs/crm/crm_r50_2xb6-45k_saliency-224x224_relabelled-voc.py'


def build(root, config=CONFIG, **test_cfg):
    """The published model without ImageNet's weights."""
    cfg = Config.fromfile(root / config)
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg = {**cfg.model.get('test_cfg', {}), **test_cfg}
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


# ---- a fresh model ----------------------------------------------------------------------------

def test_initial_weights(root):
    """Kaiming's by fan-in in the fusion, torch's own in the implicit function."""
    torch.manual_seed(0)
    model = build(root)
    model.init_weights()
    for branch, fan_in in zip([*model.neck.branches, model.neck.blend], (64, 256, 1024, 2304),
                              strict=True):
        weight = branch[0].weight
        assert weight[0].numel() == fan_in
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        assert abs(float(weight.mean())) < 0.05 * float(weight.std())
        for norm in (m for m in branch if isinstance(m, nn.BatchNorm2d)):
            assert (norm.weight == 1).all() and (norm.bias == 0).all()
    for layer in model.head.layers:  # uniform
        bound = 1 / math.sqrt(layer.in_features)
        assert float(layer.weight.abs().max()) <= bound and float(layer.bias.abs().max()) <= bound
    weights = torch.cat([layer.weight.flatten() * math.sqrt(layer.in_features)
                         for layer in model.head.layers])
    assert float(weights.std()) == pytest.approx(1 / math.sqrt(3), rel=0.05)


@torch.no_grad()
def test_no_probability_is_saturated_at_the_start(root):
    """The authors' logits have a deviation of 0.004 to 0.01 then."""
    torch.manual_seed(0)
    model = build(root)
    model.init_weights()
    model.train()
    mask = torch.from_numpy(authors.smooth('crm.start', 96, 96, 24, 2) > 0).float()[:, None]
    logits = model.logits(torch.randn(2, 3, 96, 96), mask)
    assert 0 < float(logits.std()) < 0.05
    assert float(logits.abs().max()) < 1


# ---- the authors' weights, renamed by the converter ---------------------------------------------

@pytest.fixture(scope='module')
def weights(root):
    """Converted; the last layer is changed as for their run, so that probabilities differ."""
    state = authors.state('crm_resnet50')
    for entry in ('weight', 'bias'):
        state[f'imnet.layers.8.{entry}'] *= 40
    state['imnet.layers.8.bias'] += 18
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / 'tools' / 'model_converters')
        return importlib.import_module('crm').convert(state)


@pytest.fixture(scope='module')
def model(root, weights):
    """At the protocol of small pictures: every scale, every mask."""
    built = build(root, VOC)
    built.load_state_dict(weights)
    return built.eval()


@pytest.fixture(scope='module')
def golden():
    return authors.golden('crm_features_logits_losses')


def single(array):
    return torch.from_numpy(array).float()


@torch.no_grad()
def test_features(root, weights, golden):
    """In float64, so to the rounding of what was stored."""
    net = build(root)
    net.load_state_dict(weights)
    net = authors.widened(net)
    mask = np.tanh(2 * authors.smooth('crm.small.mask', 97, 131, 16))
    stages = net.backbone(torch.from_numpy(np.concatenate(
        [authors.noise('crm.small.image', (1, 3, 97, 131)), mask[None]], 1)))
    maps = dict(stem=stages[0], layer1=stages[1], layer3=stages[3], fused=net.neck(stages))
    for name, found in maps.items():
        assert list(found.shape) == golden[f'features_{name}_shape'].tolist()
        assert float(found.abs().mean()) == pytest.approx(
            float(golden[f'features_{name}_mean_abs']), rel=1e-12)
        c, step = (64, 2) if name == 'layer3' else (16, 4)
        np.testing.assert_allclose(found[0, ::c, ::step, ::step].numpy(),
                                   golden[f'features_{name}'], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', [
    '64x80_to_64x80', '64x80_to_128x160', '61x83_to_200x271', '96x96_to_50x70'])
@torch.no_grad()
def test_logits(model, golden, name):
    """At the encoder's own size, larger, uneven and smaller."""
    size, target = (tuple(map(int, part.split('x'))) for part in name.split('_to_'))
    image = authors.noise(f'crm.logits.image.{name}', (1, 3, *size))
    mask = np.tanh(2 * authors.smooth(f'crm.logits.mask.{name}', *size, 16))
    features = model.neck(model.backbone(single(np.concatenate([image, mask[None]], 1))))
    logits = model.head(
        model.head.project(features), all_pixels(1, whole(target), features.device),
        model.head.axes(target, tuple(features.shape[2:]))).view(target)
    expected = golden[f'logits_{name}']
    step = round(target[0] / len(expected))
    np.testing.assert_allclose(logits[::step, ::step].numpy(), expected, rtol=0, atol=1e-4)


def loss_samples():
    """Soft truth and hard coarse mask of two pictures, ``[1, 96, 112]`` in 0 .. 1."""
    truth, coarse = (authors.smooth(f'crm.loss.{name}', 96, 112, 24, 2)
                     for name in ('truth', 'coarse'))
    samples = []
    for t, c in zip(truth, coarse, strict=True):
        sample = SegDataSample()
        sample.gt_mask = PixelData(data=single(np.clip(0.5 + t, 0, 1))[None])
        sample.coarse_mask = PixelData(data=single(0.4 * c + t > 0)[None])
        samples.append(sample)
    return samples


def check_losses(found, golden, prefix):
    """The authors' losses are not weighed, but for their sum."""
    weights = dict(bce=('ce', 1), l1=('l1', 0.5), l2=('l2', 0.5), sobel=('grad', 2))
    assert found.keys() == {f'loss_{ours}' for ours in weights}
    for ours, (theirs, weight) in weights.items():
        assert float(found[f'loss_{ours}']) == pytest.approx(
            weight * float(golden[f'{prefix}{theirs}_loss']), rel=1e-5), ours
    assert float(sum(found.values())) == pytest.approx(float(golden[f'{prefix}loss']), rel=1e-5)


@torch.no_grad()
def test_losses_of_the_network(model, golden):
    image = single(authors.noise('crm.loss.image', (2, 3, 96, 112)))
    check_losses(model.loss(image, loss_samples()), golden, 'loss_')


def test_losses_of_given_logits(model, golden, monkeypatch):
    logits = 3 * authors.noise('crm.loss.logits', (2, 1, 96, 112)) + 6 * authors.smooth(
        'crm.loss.truth', 96, 112, 24, 2)[:, None]
    logits = single(logits).requires_grad_()
    monkeypatch.setattr(model, 'logits', lambda *_: logits)
    found = model.loss(torch.zeros(2, 3, 96, 112), loss_samples())
    check_losses(found, golden, 'loss_of_given_logits_')
    gradient, = torch.autograd.grad(sum(found.values()), logits)
    expected = golden['loss_of_given_logits_gradient']
    difference = np.abs(gradient[:, 0, ::8, ::8].numpy() - expected)
    assert difference.max() < 1e-5 * np.abs(expected).max()


# ---- their test script, from picture to score ---------------------------------------------------

SCALES = (0.125, 0.25, 0.5, 1.0)


@pytest.fixture(scope='module')
def script(model):
    """Golden arrays and our probabilities after every scale, float32 ``[300, 400]``."""
    golden = authors.golden('crm_test_script')
    picture = authors.picture('crm.picture', 300, 400)
    assert zlib.crc32(picture.tobytes()) == int(golden['picture_crc'])
    after, refine_scale = [], model.refine_scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, 'refine_scale', lambda *args: after.append(
            refine_scale(*args)) or after[-1])
        result = model.refine(torch.from_numpy(picture[::-1].copy())[None],
                              single(golden['coarse'] / 255)[None])
    maps = dict(zip(SCALES, [p[0, 32:-32, 32:-32].numpy() for p, _ in after], strict=True))
    assert np.array_equal(maps[1.0], result.mask[0].numpy())
    return golden, maps


@pytest.mark.parametrize('scale', SCALES)
def test_probabilities_after_every_scale(script, scale):
    golden, maps = script
    np.testing.assert_allclose(
        maps[scale][::4, ::4], golden[f'probability_{scale}'], rtol=0, atol=5e-5)


@pytest.mark.parametrize('scale', [0.125, 1.0])
def test_pictures_they_wrote(script, scale):
    """Truncated to 8 bits: few values lie so close to the next that rounding moves them."""
    golden, maps = script
    found = (255 * maps[scale]).astype(np.uint8).astype(int)
    difference = np.abs(found - golden[f'probability_{scale}_8bit'])
    assert difference.max() <= 1 and (difference > 0).sum() < 100


def test_scores_of_their_script(script):
    """Exact on the pictures they wrote; ours may differ in pixels next to the cut at 129 / 255."""
    golden, maps = script
    truth = authors.bits(golden['truth'], (300, 400))
    for name, mask, tolerance in (('old', golden['coarse'] / 255, 1e-12),
                                  ('new', golden['probability_1.0_8bit'] / 255, 1e-12),
                                  ('new', maps[1.0], 1e-4)):
        mask = foreground(mask)
        intersection, union = class_areas(mask, truth, 2)[:, 1]
        assert intersection / union == pytest.approx(
            float(golden[f'script_{name}_iou']), abs=tolerance)
        assert boundary_accuracy(mask, truth) == pytest.approx(
            float(golden[f'script_{name}_mba']), abs=tolerance)


# ---- metric -------------------------------------------------------------------------------------

KINDS = ('truth', 'refined', 'coarse')


@pytest.fixture(scope='module')
def metrics():
    return authors.golden('crm_metrics')


def test_metric_of_masks(metrics):
    """Areas and accuracies of every picture, and the figures of all."""
    metric = BoundaryAccuracyMetric()
    for i in range(5):
        truth, *masks = (authors.bits(metrics[f'case{i}_{kind}'], metrics[f'case{i}_shape'])
                         for kind in KINDS)
        for j, mask in enumerate(masks):
            assert boundary_accuracy(mask, truth) == metrics[
                f'case{i}_accuracy_refined_coarse'][j]
            assert class_areas(mask, truth, 2)[:, 1].tolist() == metrics[
                f'case{i}_intersection_union_refined_coarse'][j].tolist()
        metric.process({}, [{f'{name}_mask': dict(data=single(mask)[None]) for name, mask in zip(
            ('gt', 'refined', 'coarse'), (truth, *masks), strict=True)}])
    found = metric.compute_metrics(metric.results)
    for key, name in (('pooled_iou', 'IoU'), ('mean_accuracy', 'mBA')):
        expected = [round(100 * float(v), 2) for v in metrics[f'{key}_refined_coarse']]
        assert [found[name], found[f'coarse_{name}']] == expected
    assert found['skipped'] == 0


@pytest.mark.parametrize('case', range(2))
def test_metric_of_labels(metrics, case):
    """Void is 0 with the authors: its pixels count nowhere."""
    truth, *labels = (metrics[f'classes{case}_{kind}'] for kind in KINDS)
    assert [boundary_accuracy(x, truth, ignore_index=0) for x in labels] == metrics[
        f'classes{case}_accuracy_refined_coarse'].tolist()


# ---- perturbation of masks ----------------------------------------------------------------------

def distance(first, second):
    """Kolmogorov and Smirnov's: the largest gap between two empirical distributions."""
    at = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(x), at, side='right') / len(x) for x in (first, second)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.mark.parametrize('name', ['disc', 'ring', 'blobs'])
@pytest.mark.parametrize('part', ['contours_only', 'whole'])
def test_spoiled_masks_are_distributed_alike(name, part):
    """IoU with the mask and share of foreground. Two samples of 400 of one distribution are up to
    0.096 apart in 95 % of all cases; one corner more per contour makes it 0.11 or more.
    """
    golden = authors.golden('crm_mask_perturbation')
    mask = 255 * authors.bits(golden[f'{name}_mask'], (224, 224)).astype(np.uint8)
    rng = np.random.default_rng(0)
    if part == 'whole':
        spoiled = [perturb_mask(mask, rng.uniform(0.8, 1), rng) for _ in range(400)]
    else:
        spoiled = [simplify_contours(mask, rng) for _ in range(4000)]
    ious = np.array([mask_iou(m, mask) for m in spoiled])
    assert distance(ious, golden[f'{name}_{part}_iou_sorted']) < 0.096
    shares = np.array([m.mean() / 255 for m in spoiled])
    for found, kind in ((ious, 'iou'), (shares, 'foreground')):
        mean, deviation = golden[f'{name}_{part}_{kind}_mean_std']
        error = deviation * math.sqrt(1 / 400 + 1 / len(found))  # of the difference of two means
        assert abs(found.mean() - mean) < 3 * error
        assert found.std() == pytest.approx(deviation, rel=0.2)
