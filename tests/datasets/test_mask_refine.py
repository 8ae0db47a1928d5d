"""Data of mask refiners: loaded, augmented, spoiled and packed; each missing thing is named."""
import re
import shutil
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS, TRANSFORMS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from mmsparse.datasets import (
    BIGDataset,
    ColorJitter,
    LoadMasks,
    PackMaskInputs,
    PerturbMaskBoundary,
    RandomMaskCrop,
    SaliencyRefineDataset,
    perturb_mask,
)
from mmsparse.datasets.mask_refine import SETS
from mmsparse.datasets.transforms import mask_refine
from mmsparse.datasets.transforms.mask_refine import (
    edit_rectangle,
    mask_iou,
    shortest_runs,
    simplify_contours,
)
from tests.examples import examples

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return str(path)


def disc(height, width, radius):
    mask = np.zeros((height, width), np.uint8)
    return cv2.circle(mask, (width // 2, height // 2), radius, 255, -1)


def ring():
    mask = disc(160, 160, 70)
    return cv2.circle(mask, (80, 80), 35, 0, -1)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    return tmp_path


def make_saliency(folder):
    """Two pairs per set, where the documented tree has them; one smaller than the crop."""
    pairs = re.findall(r'(\S+)/\*.jpg +(\S+)/\*.png', SaliencyRefineDataset.TREE)
    assert len(pairs) == 5
    for name, (height, width) in (('1', (240, 300)), ('2', (100, 260))):
        for images, masks in pairs:
            images, masks = (folder / 'saliency' / p.replace('CLASS', 'zebra')
                             for p in (images, masks))
            write(images / f'{name}.jpg', np.full((height, width, 3), 90, np.uint8))
            write(masks / f'{name}.png', disc(height, width, 40))
    return folder / 'saliency'


def make_big(folder):
    """Two objects in each split; the second has a smaller coarse mask and a PNG image."""
    root = folder / 'big'
    for split in ('val', 'test'):
        for name, suffix, size in (('a', 'jpg', (60, 80)), ('b', 'png', (30, 40))):
            name = f'{split}_{name}'
            write(root / split / f'{name}_im.{suffix}', np.full((60, 80, 3), 90, np.uint8))
            write(root / split / f'{name}_gt.png', disc(60, 80, 20))
            write(root / 'coarse' / f'{name}_seg.png', disc(*size, size[0] // 3))
    return root


def loader(name, split):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')[f'{split}_dataloader']
    cfg.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.collate_fn = dict(type='pseudo_collate')
    return Runner.build_dataloader(cfg, seed=0)


# ---- data sets, through their configs ------------------------------------------------------------

def test_the_training_config_yields_crops_of_all_sets(data):
    make_saliency(data)
    train = loader('saliency-224x224', 'train')
    assert len(train.dataset) == 10
    paths = [train.dataset.get_data_info(i)['img_path'] for i in range(10)]
    assert [path.split('saliency/')[1] for path in paths[:3]] == [
        'DUTS-TR/DUTS-TR-Image/1.jpg', 'DUTS-TR/DUTS-TR-Image/2.jpg', 'DUTS-TE/DUTS-TE-Image/1.jpg']
    batch = next(iter(train))
    assert len(batch['inputs']) == 2
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        assert isinstance(sample, SegDataSample)
        assert image.dtype == torch.uint8 and image.shape == (3, 224, 224)
        assert sample.img_shape == (224, 224) and sample.ori_shape in ((240, 300), (100, 260))
        for mask in (sample.gt_mask.data, sample.coarse_mask.data):
            assert mask.dtype == torch.float32 and mask.shape == (1, 224, 224)
        coarse, truth = sample.coarse_mask.data.bool(), sample.gt_mask.data.bool()
        assert 0.3 < (coarse & truth).sum() / (coarse | truth).sum() < 1


@pytest.mark.parametrize('split', ['val', 'test'])
def test_the_test_config_yields_whole_images(data, split):
    make_big(data)
    first, second = next(iter(loader('big', split)))['data_samples']
    for sample in (first, second):
        assert sample.gt_mask.shape == sample.coarse_mask.shape == sample.ori_shape == (60, 80)
        assert sample.img_path.startswith(str(data / 'big' / split))
        assert set(sample.coarse_mask.data.unique().tolist()) == {0, 1}
    assert torch.equal(first.gt_mask.data, first.coarse_mask.data)
    assert not torch.equal(second.gt_mask.data, second.coarse_mask.data)


def test_coarse_masks_beside_the_images(data):
    root = make_big(data)
    for path in (root / 'coarse').glob('val*'):
        shutil.move(path, root / 'val')
    dataset = BIGDataset(data_root=str(root / 'val'))
    assert dataset[1]['coarse_mask_path'] == str(root / 'val/val_b_seg.png')
    assert dataset[1]['img_path'] == str(root / 'val/val_b_im.png')


def test_folders_of_ones_own(data):
    root = make_saliency(data)
    write(root / 'mine/a/x.jpg', np.zeros((8, 8, 3), np.uint8))
    write(root / 'masks/a/x.png', np.zeros((8, 8), np.uint8))
    dataset = SaliencyRefineDataset(data_root=str(root), sets=['ECSSD', ('mine', 'masks')])
    assert len(dataset) == 3
    assert dataset[2]['gt_mask_path'] == str(root / 'masks/a/x.png')


def failure(dataset, **kwargs):
    with pytest.raises(FileNotFoundError) as error:
        dataset(**kwargs)
    message = str(error.value)
    assert message.startswith(f'{dataset.__name__}: ') and message.endswith(dataset.TREE)
    return message


@pytest.mark.parametrize('name', SETS)
def test_missing_sets_and_masks_are_named(data, name):
    root = make_saliency(data)
    images, masks = (root / folder for folder in SETS[name])
    inner = 'zebra/' if name == 'FSS-1000' else ''
    (masks / f'{inner}2.png').unlink()
    message = failure(SaliencyRefineDataset, data_root=str(root))
    assert f'1 of 2 gt mask files are not in {masks}: {inner}2.png. ' in message
    shutil.rmtree(masks)
    if masks != images:
        assert f'no folder {masks}. ' in failure(SaliencyRefineDataset, data_root=str(root))
        shutil.rmtree(images)
    assert f'no folder {images}. ' in failure(SaliencyRefineDataset, data_root=str(root))
    images.mkdir()
    assert "no file that ends in '.jpg'" in failure(SaliencyRefineDataset, data_root=str(root))
    others = [other for other in SETS if other != name]
    assert len(SaliencyRefineDataset(data_root=str(root), sets=others)) == 8


def test_missing_files_of_big_are_named(data):
    root = make_big(data)
    roots = dict(data_root=str(root / 'val'), coarse_root=str(root / 'coarse'))
    (root / 'coarse/val_b_seg.png').unlink()
    assert f'1 of 2 coarse mask files are not in {root / "coarse"}: val_b_seg.png' in failure(
        BIGDataset, **roots)
    (root / 'val/val_a_gt.png').unlink()
    assert '1 of 2 gt mask files' in failure(BIGDataset, **roots)
    assert f'no folder {root / "no"}' in failure(BIGDataset, data_root=str(root / 'no'))
    write(root / 'val/val_a_gt.png', disc(60, 80, 20))
    assert f'no folder {root / "no"}' in failure(
        BIGDataset, **(roots | dict(coarse_root=str(root / 'no'))))
    assert "no file that ends in ('_im.jpg', '_im.png')" in failure(
        BIGDataset, data_root=str(root / 'coarse'))


@pytest.mark.parametrize('name', ['DUTS', ('a', 'b', 'c')])
def test_unknown_sets_are_refused(name):
    with pytest.raises(ValueError, match=r"names among \['DUTS-TR', .* got .*(DUTS|a)"):
        SaliencyRefineDataset(data_root='x', sets=[name])


# ---- loading and packing -------------------------------------------------------------------------

def sample(tmp_path, **masks):
    results = dict(img=np.zeros((20, 30, 3), np.uint8), img_path='the_image.jpg')
    return results | {f'{name}_path': write(tmp_path / f'{name}.png', mask)
                      for name, mask in masks.items()}


def test_masks_are_loaded_as_gray(tmp_path):
    soft = rng().integers(256, size=(20, 30), dtype=np.uint8)
    results = LoadMasks()(sample(tmp_path, gt_mask=soft, coarse_mask=np.stack([soft] * 3, -1)))
    assert np.array_equal(results['gt_mask'], soft)
    assert np.array_equal(results['coarse_mask'], soft)
    assert results['seg_fields'] == ['gt_mask', 'coarse_mask']
    assert 'coarse_mask' not in LoadMasks()(sample(tmp_path, gt_mask=soft))


@pytest.mark.parametrize(('name', 'resize'), [
    ('gt_mask', False), ('gt_mask', True), ('coarse_mask', False)])
def test_masks_of_another_size_are_refused(tmp_path, name, resize):
    results = sample(tmp_path, **{name: np.zeros((30, 20), np.uint8)})
    with pytest.raises(ValueError, match=f'{name}.png of 20x30 .* the_image.jpg of 30x20'):
        LoadMasks(resize_coarse=resize)(results)


def test_a_smaller_coarse_mask_is_resized_and_cut(tmp_path):
    small = np.zeros((10, 15), np.uint8)
    small[:, 7:] = 255
    mask = LoadMasks(resize_coarse=True)(sample(tmp_path, coarse_mask=small))['coarse_mask']
    assert np.array_equal(mask, np.tile(np.where(np.arange(30) < 14, 0, 255), (20, 1)))
    soft = np.full((20, 30), 100, np.uint8)  # of the right size: left as it is
    soft[0] = 200
    mask = LoadMasks(resize_coarse=True)(sample(tmp_path, coarse_mask=soft))['coarse_mask']
    assert np.array_equal(mask, soft)


@pytest.mark.parametrize(('old', 'new'), [(700, 224), (640, 300), (100, 333), (57, 400)])
@pytest.mark.parametrize('turn', [lambda x: x, np.fliplr, np.transpose])
def test_a_resized_mask_stays_on_its_edge(tmp_path, old, new, turn):
    """In the mean over edges anywhere to a tenth of a pixel: hard masks round each of them."""
    edges = np.arange(old // 4, 3 * old // 4)
    mask = np.where(np.arange(old) < edges[:, None], 255, 0).astype(np.uint8)
    image = turn(np.zeros((len(edges), new), np.uint8))
    found = turn(LoadMasks(resize_coarse=True)(dict(
        img=image, img_path='i', coarse_mask_path=write(tmp_path / 'm.png', turn(mask)))
    )['coarse_mask'])
    assert (np.diff(found.astype(int), axis=1) <= 0).all() and set(np.unique(found)) == {0, 255}
    errors = (found > 0).sum(1) - edges * new / old
    assert abs(errors.mean()) < 0.1 and np.abs(errors).max() < 0.51


def test_a_shrunk_mask_is_smoothed(tmp_path):
    """One pixel in eight is an eighth of the object, not what the sampling happens to hit."""
    stripes = np.zeros((160, 240), np.uint8)
    stripes[:, 4::8] = 255
    for shift in range(8):
        path = write(tmp_path / 'm.png', np.roll(stripes, shift, 1))
        mask = LoadMasks(resize_coarse=True)(dict(
            img=np.zeros((20, 30, 3), np.uint8), img_path='i', coarse_mask_path=path))
        assert not mask['coarse_mask'].any()


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'gt_mask.png goes from 0 to 1 \(0, 1\)'):
        LoadMasks()(sample(tmp_path, gt_mask=np.eye(20, 30, dtype=np.uint8)))
    path = tmp_path / 'text.png'
    path.write_text('no image')
    with pytest.raises(ValueError, match='text.png is no image'):
        LoadMasks()(sample(tmp_path) | dict(gt_mask_path=str(path)))


def test_masks_are_packed_as_shares():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    results = dict(img=np.zeros((16, 16, 3), np.uint8), img_path='a', ori_shape=(16, 16))
    packed = PackMaskInputs()(results | dict(coarse_mask=mask))['data_samples']
    assert 'gt_mask' not in packed and packed.img_path == 'a' and packed.ori_shape == (16, 16)
    packed = PackMaskInputs()(results | dict(gt_mask=mask, coarse_mask=mask))['data_samples']
    expected = torch.tensor([[i / 255 for i in range(256)]]).view(1, 16, 16)
    assert torch.equal(packed.gt_mask.data, expected)
    with pytest.raises(KeyError, match='PerturbMaskBoundary'):
        PackMaskInputs()(results | dict(gt_mask=mask))


# ---- cropping, flipping, colors ------------------------------------------------------------------

def placed(height, width):
    """Image and masks whose values tell the pixel's place."""
    y, x = np.mgrid[1:height + 1, 1:width + 1].astype(np.uint8)
    return dict(img=np.stack([y, x, y ^ x], -1), gt_mask=y, coarse_mask=x,
                seg_fields=['gt_mask', 'coarse_mask'])


@pytest.mark.parametrize('size', [(90, 100), (32, 100), (20, 100), (90, 9), (5, 6)])
def test_the_crop_takes_one_window_and_pads_on_all_sides(size):
    """Where the image is shorter than the square, all of it is there, anywhere in the square."""
    whole, corners = placed(*size), set()
    for _ in range(60):
        found = RandomMaskCrop(32)(placed(*size))
        y, x = (found['img'][..., c] for c in (0, 1))
        (row, column), *_ = np.argwhere(y > 0)
        top, left = int(y[row, column]) - 1 - row, int(x[row, column]) - 1 - column
        corners.add((top, left))
        for key in ('img', 'gt_mask', 'coarse_mask'):
            around = np.pad(whole[key], [(32, 32)] * 2 + [(0, 0)] * (whole[key].ndim - 2))
            expected = around[32 + top:64 + top, 32 + left:64 + left]
            assert np.array_equal(found[key], expected) and found[key].dtype == np.uint8
        assert found['img_shape'] == (32, 32)
    for side, places in zip(size, zip(*corners, strict=True), strict=True):
        assert min(0, side - 32) <= min(places) and max(places) <= max(0, side - 32)
        assert len(set(places)) > min(abs(side - 32), 15) / 2


def test_every_place_of_the_crop_is_equally_likely():
    """A small image on all sides of the square: 5 x 4 places, 2,000 draws, 100 +- 10 each."""
    counts = np.zeros((5, 4))
    for _ in range(2000):
        found = RandomMaskCrop(8)(dict(img=np.ones((4, 5, 3), np.uint8)))['img']
        counts[tuple(np.argwhere(found[..., 0])[0])] += 1
    assert counts.min() > 50 and counts.max() < 160


def test_the_stock_flip_flips_every_mask():
    init_default_scope('mmseg')
    flip = TRANSFORMS.build(dict(type='RandomFlip', prob=1.0))
    found, whole = flip(placed(20, 30)), placed(20, 30)
    for key in ('img', 'gt_mask', 'coarse_mask'):
        assert np.array_equal(found[key], whole[key][:, ::-1])


def jittered(img, **strengths):
    strengths = dict(brightness=0, contrast=0, saturation=0) | strengths
    return ColorJitter(**strengths)(dict(img=img))['img'].astype(float)


def test_jitter_blends_with_black_the_mean_and_gray():
    img = rng().integers(60, 180, size=(24, 24, 3), dtype=np.uint8)
    gray = img @ np.array([0.114, 0.587, 0.299])
    assert np.array_equal(jittered(img), img)
    for name, dull in (('brightness', 0.0), ('contrast', gray.mean()),
                       ('saturation', gray[..., None])):
        factors = []
        for _ in range(60):
            found = jittered(img, **{name: 0.3})
            away = np.broadcast_to(img - dull, img.shape)  # found = dull + factor * away
            factor = ((found - dull) * away).sum() / (away ** 2).sum()
            assert np.abs(found - dull - factor * away).max() < 2.5
            factors.append(factor)
        assert 0.69 < min(factors) < 0.76 and 1.24 < max(factors) < 1.31


def test_jitter_changes_the_order(monkeypatch):
    orders = set()
    for name in ('brightness', 'contrast', 'color'):
        monkeypatch.setattr(mmcv, f'adjust_{name}',
                            lambda img, factor, name=name: seen.append(name) or img)
    for _ in range(60):
        seen = []
        jittered(np.zeros((2, 2, 3), np.uint8))
        orders.add(tuple(seen))
    assert len(orders) == 6


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: ColorJitter(brightness=2, contrast=0, saturation=0), r'brightness must .* got 2'),
    (lambda: RandomMaskCrop(0), 'size must be at least 1, got 0'),
    (lambda: PerturbMaskBoundary(iou_range=(0.9, 0.8)), r'iou_range .* got \(0.9, 0.8\)'),
    (lambda: PerturbMaskBoundary(iou_range=(0.9, 1.1)), 'iou_range'),
    (lambda: PerturbMaskBoundary(cut=255), 'cut must be from 0 to 254, got 255'),
    (lambda: perturb_mask(np.ones((9, 9), np.uint8), 0.9, rng()), r'0 and 255, got uint8 .* \[1\]'),
    (lambda: perturb_mask(np.zeros((9, 9), bool), 0.9, rng()), r'got bool \[9, 9\]'),
    (lambda: perturb_mask(np.zeros((9, 9, 1), np.uint8), 0.9, rng()), r'\[9, 9, 1\]')])
def test_settings_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ---- the perturbation ----------------------------------------------------------------------------

@given(st.integers(0, 2**31), st.integers(10, 120))
@examples(30)
def test_short_runs_against_a_loop(seed, count):
    points = rng(seed).integers(0, 1000, (count, 2))
    starts, length = shortest_runs(points)
    assert length == count // 10
    chords = []
    for i in range(count - length):
        (x0, y0), (x1, y1) = points[i], points[i + length]
        chords.append((x0 - x1) ** 2 + (y0 - y1) ** 2)
    assert len(starts) == int(np.ceil(len(chords) / 10))
    assert sorted(chords[i] for i in starts) == sorted(chords)[:len(starts)]


def test_simplified_contours_keep_holes_and_few_corners():
    for seed in range(10):
        simple = simplify_contours(ring(), rng(seed))
        assert set(np.unique(simple)) == {0, 255} and simple.dtype == np.uint8
        assert (simple[70:90, 70:90] == 0).all(), 'the hole'
        assert 0.7 < mask_iou(simple, ring()) < 1


def test_small_contours_vanish():
    dots = np.zeros((40, 40), np.uint8)
    dots[5:8, 5:8] = 255  # eight points around it
    assert np.array_equal(simplify_contours(dots, rng()), dots), 'nothing left: as it was'
    both = dots | np.roll(disc(40, 40, 10), (6, 6), (0, 1))
    assert not simplify_contours(both, rng())[:10, :10].any()


class Script:
    """Random numbers as written down, each within the range that is asked for."""

    def __init__(self, *values):
        self.values = iter(values)

    def integers(self, low, high=None):
        low, high, value = (0, low, next(self.values)) if high is None else (
            low, high, next(self.values))
        assert low <= value < high
        return value

    def random(self):
        return next(self.values)


def loop_morph(window, shape, size, pick):
    """``pick`` (min or max) of what the kernel covers of the window."""
    width, height = size
    kernel = cv2.getStructuringElement(shape, size)
    found = np.zeros_like(window)
    for y, x in np.ndindex(*window.shape):
        covered = [window[v, u] for i, j in zip(*np.nonzero(kernel), strict=True)
                   if 0 <= (v := y + i - height // 2) < len(window)
                   and 0 <= (u := x + j - width // 2) < len(window[0])]
        found[y, x] = pick(covered)
    return found


@st.composite
def ranges(draw, size):
    """A part of ``range(size)`` that is not empty: its start and its end."""
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size))


@given(st.sampled_from([None, 0, 255]), st.integers(0, 3), st.integers(3, 9), st.booleans(),
       ranges(20), ranges(24), st.integers(0, 2**31))
@example(None, 0, 5, True, (0, 20), (0, 24), 1)
@example(255, 2, 5, False, (0, 20), (0, 24), 1)
@example(0, 3, 4, True, (19, 20), (23, 24), 1)
@examples(100)
def test_an_edit_against_a_loop(center, index, side, dilate, rows, columns, seed):
    """Nothing outside the rectangle is touched or seen."""
    (top, bottom), (left, right) = rows, columns
    shape = cv2.MORPH_RECT if index == 0 else cv2.MORPH_ELLIPSE
    size = [(side, side), (side, side), (side, side // 2), (side // 2, side)][index]
    mask = (rng(seed).random((20, 24)) < (0.2 if dilate else 0.8)).astype(np.uint8) * 255
    expected = mask.copy()
    colored = [0.3] if center is None else [0.2, center // 255]
    edit_rectangle(mask, Script(top, left, bottom - 1, right - 1, *colored, side, index,
                                0.4 if dilate else 0.6))
    if center is not None:
        expected[(top + bottom) // 2, (left + right) // 2] = center
    window = expected[top:bottom, left:right]
    window[...] = loop_morph(window.copy(), shape, size, max if dilate else min)
    assert np.array_equal(mask, expected)


def test_kernels_have_all_sizes(monkeypatch):
    seen, real = set(), cv2.getStructuringElement
    monkeypatch.setattr(cv2, 'getStructuringElement',
                        lambda shape, size: seen.add((shape, size)) or real(shape, size))
    for seed in range(1000):
        edit_rectangle(np.zeros((4, 5), np.uint8), rng(seed))
    expected = {(cv2.MORPH_RECT, (k, k)) for k in range(3, 10)}
    for k in range(3, 10):
        expected |= {(cv2.MORPH_ELLIPSE, size) for size in ((k, k), (k, k // 2), (k // 2, k))}
    assert seen == expected


@given(st.integers(0, 2**31), st.integers(3, 70), st.integers(3, 70), st.floats(0.5, 1))
@examples(40)
def test_the_iou_ends_below_the_target(seed, height, width, target):
    mask = disc(height, width, min(height, width) // 3)
    before = mask.copy()
    coarse = perturb_mask(mask, target, rng(seed))
    assert coarse.dtype == np.uint8 and coarse.shape == mask.shape
    assert np.isin(coarse, (0, 255)).all() and np.array_equal(mask, before)
    assert np.array_equal(coarse, perturb_mask(mask, target, rng(seed)))
    first, second = simplify_contours(mask, rng(seed)) > 0, coarse > 0
    assert (first & second).sum() < target * (first | second).sum()


def test_at_most_250_rounds_of_four(monkeypatch):
    calls = []
    monkeypatch.setattr(mask_refine, 'edit_rectangle', lambda *args: calls.append(args))
    mask = disc(40, 40, 15)
    coarse = perturb_mask(mask, 1.0, rng())
    assert len(calls) == 1000
    assert np.array_equal(coarse, simplify_contours(mask, rng()))


def test_a_round_has_four_edits():
    mask, target = disc(60, 60, 20), 0.9
    random = rng(3)
    expected = simplify_contours(mask, random)
    simple, rounds = expected.copy(), 0
    while rounds == 0 or mask_iou(expected, simple) >= target:
        for _ in range(4):
            edit_rectangle(expected, random)
        rounds += 1
    assert rounds > 1
    assert np.array_equal(perturb_mask(mask, target, rng(3)), expected)


@pytest.mark.parametrize('shape', [(1, 1), (2, 50), (50, 2), (1, 7)])
def test_tiny_masks_are_left_alone(shape):
    mask = (rng().integers(2, size=shape) * 255).astype(np.uint8)
    assert np.array_equal(perturb_mask(mask, 0.9, rng()), mask)


def test_empty_and_full_masks_are_spoiled():
    """Blobs in an empty mask; about an eighth is lost of a full one."""
    kept = []
    for seed in range(20):
        assert perturb_mask(np.zeros((224, 224), np.uint8), 0.9, rng(seed)).any()
        full = np.full((224, 224), 255, np.uint8)
        full = perturb_mask(full, rng(seed).uniform(0.8, 1), rng(seed))
        kept.append(np.mean(full > 0))
    assert 0.8 < np.mean(kept) < 0.95 and max(kept) < 1


def test_how_much_a_disc_suffers():
    """The published perturbation leaves a mean IoU of 0.87 to a disc of radius 70."""
    mask, ious, simple = disc(224, 224, 70), [], []
    for seed in range(150):
        random = rng(seed)
        ious.append(mask_iou(perturb_mask(mask, random.uniform(0.8, 1), random), mask))
        simple.append(mask_iou(simplify_contours(mask, random), mask))
    assert np.mean(ious) == pytest.approx(0.87, abs=0.02)
    assert 0.6 < min(ious) < 0.8 and 0.94 < max(ious) < 1
    assert np.mean(simple) == pytest.approx(0.96, abs=0.01)
    rings = [mask_iou(simplify_contours(ring(), rng(seed)), ring()) for seed in range(50)]
    assert np.mean(rings) == pytest.approx(0.92, abs=0.02)


def test_the_transform_follows_numpys_seed_and_cuts():
    soft = disc(100, 100, 40)
    soft[:, :30] = np.where(soft[:, :30] > 0, 100, 0)

    def coarse(seed, **kwargs):
        np.random.seed(seed)
        return PerturbMaskBoundary(**kwargs)(dict(gt_mask=soft, seg_fields=['gt_mask']))

    found = coarse(1)
    assert found['seg_fields'] == ['gt_mask', 'coarse_mask']
    assert np.array_equal(found['coarse_mask'], coarse(1)['coarse_mask'])
    assert not np.array_equal(found['coarse_mask'], coarse(2)['coarse_mask'])
    whole, inner = ((soft > cut).astype(np.uint8) * 255 for cut in (0, 127))
    for cut, own, other in ((0, whole, inner), (127, inner, whole)):
        mask = coarse(1, iou_range=(1.0, 1.0), cut=cut)['coarse_mask']
        assert mask_iou(mask, own) > mask_iou(mask, other)


def test_stock_resizing_takes_the_masks_along(data):
    """By nearest neighbor: no new values."""
    root = make_saliency(data)
    dataset = DATASETS.build(dict(
        type='mmsparse.SaliencyRefineDataset', data_root=str(root), sets=['ECSSD'], pipeline=[
            dict(type='LoadImageFromFile'), dict(type='mmsparse.LoadMasks'),
            dict(type='Resize', scale=(60, 40), keep_ratio=False),
            dict(type='mmsparse.PerturbMaskBoundary'), dict(type='mmsparse.PackMaskInputs')]))
    batch = pseudo_collate([dataset[0], dataset[1]])
    assert [s.gt_mask.shape for s in batch['data_samples']] == [(40, 60)] * 2
    assert all(set(s.gt_mask.data.unique().tolist()) == {0, 1} for s in batch['data_samples'])
