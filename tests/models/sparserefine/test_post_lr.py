"""Low-resolution logits of clean images, augmented together with image and label."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Resize
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.utils import register_all_modules

from mmsparse.datasets import KeepLowRes
from mmsparse.sparse import entropy
from tests.models.tiny import batch, build_refine


def through_pipeline(source, *augmentations, label, image):
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    load = lambda results: results | dict(img=image.copy(), gt_seg_map=label.copy())  # noqa: E731
    pipeline = Compose([load, source, *augmentations, dict(
        type='mmsparse.PackRefineInputs', meta_keys=('ori_shape', 'img_shape', 'flip'))])
    return pipeline(dict(img_path='a/one.png', seg_fields=['gt_seg_map'],
                         ori_shape=image.shape[:2], img_shape=image.shape[:2]))


AUGMENTATIONS = [
    dict(type='RandomResize', scale=(192, 96), ratio_range=(0.8, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 80)), dict(type='RandomFlip', prob=1.0)]


def case():
    g = np.random.default_rng(0)
    image = g.integers(0, 256, (96, 192, 3), np.uint8)
    # a label that names each low-resolution pixel's row, so that it must move like the logits
    label = np.repeat(np.repeat(np.arange(48, dtype=np.uint8), 2)[:, None], 192, 1)
    return image, label


def test_logits_of_clean_images_move_with_the_augmentation():
    image, label = case()
    item = through_pipeline(dict(type='mmsparse.KeepLowRes', scale=(96, 48)), *AUGMENTATIONS,
                            image=image, label=label)
    sample = item['data_samples']
    index = sample.low_res_index.data
    assert index.shape == (1, 64, 80)
    assert torch.equal(index // 96, sample.gt_sem_seg.data.long())  # row of the pixel
    columns = (index % 96)[0].float().mean(0)
    assert (columns.diff() <= 0).all(), 'flipped'


def test_post_lr_runs_the_segmentor_on_the_clean_image():
    image, label = case()
    model = build_refine(joint_aug='post_lr', num_classes=5).train()
    item = through_pipeline(dict(type='mmsparse.KeepLowRes', scale=(96, 48)), *AUGMENTATIONS,
                            image=image, label=label % 5)
    data = model.data_preprocessor(
        dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), True)
    assert data['inputs'].shape[2:] == (96, 101), 'padded by the preprocessor'
    low = model.low_logits(**data)
    # by hand: normalize, halve, segment the clean image, then look the pixels up
    clean = torch.from_numpy(image).permute(2, 0, 1)[None].float().flip(1)
    clean = (clean - model.data_preprocessor.mean) / model.data_preprocessor.std
    small = F.interpolate(clean, size=(48, 96), mode='bilinear', align_corners=False)
    meta = [dict(ori_shape=(48, 96), img_shape=(48, 96), pad_shape=(48, 96))]
    with torch.no_grad():
        scores = model.segmentor.encode_decode(small, meta)[0]
    index = item['data_samples'].low_res_index.data[0]
    expected = scores.flatten(1)[:, index]
    torch.testing.assert_close(low.full()[0, :, :64, :80], expected, atol=1e-4, rtol=1e-4)
    assert low.inside[0, :64, :80].all() and low.inside.sum() == 64 * 80
    rows = torch.tensor([[0, 3, 5], [0, 63, 79]])
    torch.testing.assert_close(low.at(rows), low.full()[0, :, rows[:, 1], rows[:, 2]].T)
    torch.testing.assert_close(low.entropy(), entropy(low.full()))
    losses = model.loss(**data)
    losses['decode.loss_ensemble_ce'].backward()
    assert losses['decode.density'] < 64 * 80 / (96 * 101)


def test_padding_of_the_pipeline_is_never_selected():
    image, label = case()
    item = through_pipeline(dict(type='mmsparse.KeepLowRes', scale=(96, 48)),
                            dict(type='Pad', size=(96, 101 + 101), pad_val=dict(img=0, seg=255)),
                            image=image, label=label % 5)
    index = item['data_samples'].low_res_index.data
    assert (index[..., :192] >= 0).all() and (index[..., 192:] < 0).all()


@pytest.mark.parametrize('probabilities', [True, False])
def test_stored_logits_stand_in_for_the_segmentor(tmp_path, probabilities):
    image, label = case()
    scores = np.random.default_rng(1).random((5, 48, 96)).astype(np.float16)
    np.save(tmp_path / 'one.npy', scores)
    model = build_refine(joint_aug='post_lr')
    model.segmentor = None  # not asked
    item = through_pipeline(
        dict(type='mmsparse.LoadLowResLogits', logits_root=str(tmp_path),
             probabilities=probabilities),
        image=image, label=label % 5)
    data = dict(inputs=torch.randn(1, 3, 96, 192), data_samples=[item['data_samples']])
    logits = torch.from_numpy(scores).float()
    expected = F.interpolate(logits[None].log() if probabilities else logits[None],
                             size=(96, 192), mode='nearest')
    found = model.low_logits(**data).full()
    torch.testing.assert_close(found, expected)
    sample, = model.predict(**data)
    assert torch.equal(sample.low_res_sem_seg.data[0], found[0].argmax(0))


def test_stored_logits_that_misfit_are_named(tmp_path):
    image, label = case()
    load = dict(type='mmsparse.LoadLowResLogits', logits_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no stored logits .*one.npy for a/one.png'):
        through_pipeline(load, image=image, label=label)
    np.save(tmp_path / 'one.npy', np.zeros((5, 48), np.float32))
    with pytest.raises(ValueError, match=r'must hold floats \[K, h, w\], got float32 \[5, 48\]'):
        through_pipeline(load, image=image, label=label)
    np.save(tmp_path / 'one.npy', np.zeros((7, 48, 96), np.float32))
    item = through_pipeline(load, image=image, label=label)
    with pytest.raises(ValueError, match='have 7 classes, the segmentor predicts 5'):
        build_refine().low_logits(torch.zeros(1, 3, 96, 192), [item['data_samples']])


def test_tracking_after_an_augmentation_is_refused():
    image, _ = case()
    with pytest.raises(ValueError, match='stand before every augmentation'):
        KeepLowRes(scale=(48, 24)).transform(Resize(scale=(96, 48))(dict(img=image)))


def test_joint_aug_and_pipeline_must_agree():
    model = build_refine(joint_aug='post_lr').train()
    with pytest.raises(ValueError, match="joint_aug is 'post_lr', but the training pipeline lacks"):
        model.loss(**batch(model))
    image, label = case()
    item = through_pipeline(dict(type='mmsparse.KeepLowRes', scale=(96, 48)), image=image,
                            label=label)
    with pytest.raises(ValueError, match="joint_aug is 'pre_lr', but the training pipeline has"):
        build_refine().train().loss(torch.zeros(1, 3, 96, 192), [item['data_samples']])
