"""SparseRefine gives what the authors' code gave; weights come through the converter."""
import importlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from mmsparse.datasets import LoadLowResLogits
from mmsparse.models.sparserefine import SparseRefineHead, SparseUNet
from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap, Topology, UpsampledLogits
from tests import authors
from tests.models.sparserefine.converted import NARROW, converted, head_cfg

RELEASED = 'configs/sparserefine/sparserefine_fcn-hr48_released_8xb4-46k_cityscapes-1024x2048.py'


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of one module."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.fixture(scope='module')
def convert(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / 'tools' / 'model_converters')
        return importlib.import_module('sparserefine').convert


# ---- the U-Net ------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def unets():
    return authors.golden('sparserefine_unet_padding0')


@pytest.fixture(scope='module')
def unet(convert):
    net = SparseUNet(channels=(8, 12, 16, 20, 24, 28), down_padding=0)
    state = convert(authors.state('sparserefine_unet_narrow_8_12_16_20_24_28'))
    net.load_state_dict(part(state, 'decode_head.extractor.'))
    return authors.widened(net)


def pixels_of(unets, grid):
    """Batch of two: float64 features at the mask."""
    shape = tuple(unets[f'{grid}_shape'].tolist())
    mask = torch.from_numpy(authors.bits(unets[f'{grid}_mask'], shape))
    image = torch.from_numpy(authors.noise(f'{grid}.image', (*shape, 3)))
    return SparseMap.from_mask(image.permute(0, 3, 1, 2), mask), mask


def assert_rows(found, unets, name):
    """Every second row as float32; the first 64, where stored, to float64's rounding."""
    torch.testing.assert_close(found[::2], torch.from_numpy(unets[name]).double(),
                               atol=1e-6, rtol=1e-6)
    if f'{name}_first64' in unets:
        torch.testing.assert_close(found[:64], torch.from_numpy(unets[f'{name}_first64']),
                                   atol=1e-12, rtol=0)


@pytest.mark.parametrize(('grid', 'engine'), [
    ('grid64x96', 'auto'), ('grid63x95', 'auto'), ('grid63x95', 'sparse'), ('grid63x95', 'dense')])
@torch.no_grad()
def test_unet(unets, unet, grid, engine):
    unet.engine = engine
    assert_rows(unet(pixels_of(unets, grid)[0]), unets, f'{grid}_output')


@pytest.mark.parametrize('grid', ['grid64x96', 'grid63x95'])
def test_pixels_of_the_levels(unets, grid):
    _, mask = pixels_of(unets, grid)
    for level in range(6):
        mask = Topology(mask).coarse(0).mask if level else mask
        assert int(mask.sum()) == unets[f'{grid}_sites_stride{2 ** level}']
        if f'{grid}_coarse_coordinates_stride{2 ** level}' in unets:
            assert set(map(tuple, mask.nonzero().tolist())) == set(map(
                tuple, unets[f'{grid}_coarse_coordinates_stride{2 ** level}'].tolist()))


@pytest.mark.parametrize('name', ['grid96x128_output', 'grid96x128_second_alone_output'])
@torch.no_grad()
def test_unet_on_a_grid_whose_last_rows_are_empty(unets, unet, name):
    """There the authors' coarse levels end with the batch's last active pixel; ours do not, so that
    a picture does not depend on what else is in its batch."""
    pixels, mask = pixels_of(unets, 'grid96x128')
    if 'alone' in name:
        image = pixels.write(torch.zeros(2, 3, 96, 128, dtype=torch.float64), pixels.features)
        pixels, mask = SparseMap.from_mask(image[1:], mask[1:]), mask[1:]
    unet.engine = 'auto'
    own = unet(pixels)
    theirs = torch.from_numpy(unets[name]).double()
    assert ((own[::2] - theirs).abs().amax(1) > 1e-6).float().mean() > 0.5
    ends = mask.any(0).nonzero().amax(0) + 1
    assert_rows(unet(pixels.crop(0, 0, *ends.tolist())[0]), unets, name)
    if 'alone' in name:
        both = unet(pixels_of(unets, 'grid96x128')[0])
        torch.testing.assert_close(both[-len(own):], own)
        assert unets['grid96x128_second_alone_rows_that_differ'] > 0, 'theirs do depend on it'


# ---- selectors, ensemblers, losses ----------------------------------------------------------

@pytest.fixture(scope='module')
def parts():
    return authors.golden('sparserefine_selectors_ensemblers_losses')


@pytest.fixture(scope='module')
def logits():
    """Of two pictures, float64 ``[2, 19, 48, 64]``."""
    return torch.from_numpy(np.stack([
        16 * authors.smooth(f'selector.logits15.{b}', 48, 64, 8, 19)
        + authors.noise(f'selector.grain15.{b}', (19, 48, 64)) for b in (0, 1)]))


@pytest.fixture(scope='module')
def image():
    return torch.from_numpy(authors.noise('selector.image', (2, 3, 48, 64)))


def upsampled(logits):
    return UpsampledLogits(logits.float(), (48, 64), mode='nearest')


@pytest.mark.parametrize('alpha', [0.005, 0.05, 0.1, 0.3])
def test_entropy_selector(parts, image, logits, alpha):
    """Every pixel: float32 computes to 1e-6, the nearest is further from the threshold."""
    assert parts[f'entropy_margin_{alpha}'] > 2e-6
    selector = MODELS.build(dict(type='mmsparse.EntropySelector', num_classes=19, alpha=alpha))
    mask = selector(image, upsampled(logits)).mask
    assert int(mask.sum()) == parts[f'entropy_count_{alpha}']
    assert np.array_equal(mask.numpy(), authors.bits(parts[f'entropy_mask_{alpha}'], (2, 48, 64)))
    score = selector.score(image, upsampled(logits))[:, ::4, ::4]
    np.testing.assert_allclose(score, parts['entropy_float64'], atol=2e-6)


@torch.no_grad()
def test_learnable_selector(parts, image, logits, convert):
    selector = MODELS.build(
        dict(type='mmsparse.LearnableSelector', num_classes=19, threshold=0.95)).eval()
    state = authors.state('sparserefine_learnable_selector', 'selector.')
    selector.load_state_dict(part(convert({f'selector.{k}': v for k, v in state.items()}),
                                  'selector.'))
    low = upsampled(logits)
    odds = selector.log_odds(image.float(), low)
    np.testing.assert_allclose(odds[:, ::2, ::2], parts['learnable_score'], atol=3e-5, rtol=1e-5)
    mask = selector(image.float(), low).mask.numpy()
    clear = np.abs(odds.numpy() - np.log(0.95 / 0.05)) > 1e-3
    assert clear.mean() > 0.998
    expected = authors.bits(parts['learnable_mask'], (2, 48, 64))
    assert np.array_equal(mask[clear], expected[clear])


@pytest.fixture(scope='module')
def rows():
    """Low-resolution and refined logits of 400 pixels, float64; the first five rows are ties."""
    first, second = (torch.from_numpy(4 * authors.noise(f'ensemble.{name}', (400, 19)))
                     for name in ('first', 'second'))
    second[:5] = first[:5]
    return first, second


@torch.no_grad()
def test_gated_ensembler(parts, rows, convert):
    state = convert(authors.state(NARROW))
    ensembler = MODELS.build(dict(type='mmsparse.GatedEnsembler', num_classes=19))
    ensembler.load_state_dict(part(state, 'decode_head.ensembler.'))
    found = authors.widened(ensembler)(*rows)[::4]
    np.testing.assert_allclose(found, parts['gated'], atol=1e-12)


def test_entropy_ensembler(parts, rows):
    first, second = rows
    found = MODELS.build(dict(type='mmsparse.EntropyEnsembler', num_classes=19))(first, second)
    takes_first = torch.from_numpy(parts['entropy_ensemble_takes_first'])
    assert torch.equal(found, torch.where(takes_first[:, None], first, second))
    assert np.array_equal(found[::8], parts['entropy_ensemble'])


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0][::8]


def test_losses(parts, rows):
    labels = torch.from_numpy(parts['loss_labels']).long()
    logits = rows[0].clone().requires_grad_()
    cross_entropy = MODELS.build(dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True))
    dice = MODELS.build(dict(type='mmsparse.PointDiceLoss'))
    loss = cross_entropy(logits, labels, ignore_index=255, avg_factor=(labels != 255).sum())
    assert loss.item() == pytest.approx(float(parts['cross_entropy']), rel=1e-9)
    np.testing.assert_allclose(gradient(loss, logits), parts['cross_entropy_gradient'], atol=1e-12)
    loss = dice(logits, labels)
    assert loss.item() == pytest.approx(float(parts['dice']), abs=1e-6)
    np.testing.assert_allclose(gradient(loss, logits), parts['dice_gradient'], atol=1e-7)


def test_dice_of_absent_classes(parts, rows):
    labels = torch.from_numpy(parts['loss_labels']).long()
    labels[(labels > 9) & (labels != 255)] = 0
    dice = MODELS.build(dict(type='mmsparse.PointDiceLoss'))
    for name in ('dice_classes_10_to_18_absent', 'dice_absent_and_never_predicted'):
        logits = rows[0].clone()
        if 'never' in name:
            logits[:, 10:] = -60
        assert dice(logits, labels).item() == pytest.approx(float(parts[name]), abs=1e-6)


# ---- the refiner, through the command -------------------------------------------------------

@pytest.fixture(scope='module')
def head(root, tmp_path_factory) -> SparseRefineHead:
    """Loaded from what the command has written."""
    folder = tmp_path_factory.mktemp('converted')
    found = converted(root, folder, authors.state(NARROW))
    head = MODELS.build(head_cfg() | dict(num_classes=19))
    head.load_state_dict(part(found, 'decode_head.'))
    return head.eval()


@torch.no_grad()
def test_whole_refiner(head, image, logits):
    golden = authors.golden('sparserefine_whole_refiner')
    low = upsampled(logits)
    mask = MODELS.build(
        dict(type='mmsparse.EntropySelector', num_classes=19, alpha=0.3))(image, low).mask
    assert np.array_equal(mask.numpy(), authors.bits(golden['selected'], (2, 48, 64)))
    pixels = SparseMap.from_mask(image, mask)
    assert len(pixels) == golden['count']

    single = head(pixels.replace_features(pixels.features.float()), pixels.read(logits).float())
    for found, name in zip(single, ('refined_rows', 'ensembled_rows'), strict=True):
        np.testing.assert_allclose(found[::4], golden[name], atol=2e-5, rtol=2e-5)

    # what the head does, but for its cast to float32
    head = authors.widened(head)
    refined = head.classifier(head.extractor(pixels))
    ensembled = head.ensembler(pixels.read(logits), refined)
    np.testing.assert_allclose(refined[::4], golden['refined_rows'], atol=1e-6, rtol=1e-6)
    full = pixels.write(logits.clone(), ensembled)
    np.testing.assert_allclose(full[:, :, ::6, ::6].permute(0, 2, 3, 1),
                               golden['full_subsampled'], atol=1e-10)
    best = full.topk(2, 1).values
    clear = (best[:, 0] - best[:, 1]).numpy() > 1e-9
    assert clear.mean() > 0.999
    assert np.array_equal(full.argmax(1).numpy()[clear], golden['full_label'][clear])


# ---- data -----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def details():
    return authors.golden('sparserefine_data_details')


def test_colors_of_the_config_for_released_weights(root, details):
    cfg = Config.fromfile(root / RELEASED)
    init_default_scope(cfg.default_scope)
    preprocessor = ROOT_MODELS.build(cfg.model.data_preprocessor)
    loaded = torch.from_numpy(details['rgb_pixel'][::-1].copy()).view(3, 1, 1)  # BGR, as mmcv reads
    found = preprocessor(dict(inputs=[loaded]))['inputs']
    np.testing.assert_allclose(found.flatten(), details['network_input_for_that_pixel'], rtol=1e-6)


@pytest.mark.parametrize('sizes', [(512, 1024), (640, 1280), (640, 1024), (7, 16)])
def test_rows_of_enlarged_logits(details, sizes, tmp_path):
    """Of logits from files, in the model too where the low resolution divides the full one.

    Elsewhere the authors' rule moves the map by up to half a pixel; the model's does not.
    """
    few, many = sizes
    expected = details[f'nearest_rows_{few}_to_{many}']
    low = UpsampledLogits(torch.arange(few).float().view(1, 1, few, 1), (many, 1), mode='nearest')
    off = low.full().flatten().long() - torch.from_numpy(expected)
    assert ((off == 0) | (off == int(many % few > 0))).all()
    np.save(tmp_path / 'a.npy', np.zeros((19, few, 1), np.float32))
    results = LoadLowResLogits(logits_root=str(tmp_path), aligned=False).transform(
        dict(img=np.zeros((many, 1, 3), np.uint8), img_path='a.png'))
    assert np.array_equal(-1 - results['low_res_index'].ravel(), expected)
