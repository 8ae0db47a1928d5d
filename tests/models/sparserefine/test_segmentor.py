"""SparseRefineSegmentor from images to data samples."""
import contextlib
import copy
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.models.sparserefine.windows import check_windows, windows
from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap, entropy
from tests.examples import examples
from tests.models.tiny import batch, build_refine, low_logits, refine_cfg, segmentor_cfg

SLIDE = dict(mode='slide', crop_size=(64, 48), stride=(32, 32))
MODES = pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])


def select(model, data, metas):
    """The selected pixels and their low-resolution logits."""
    task = model.select(data['inputs'], [SegDataSample(metainfo=meta) for meta in metas])
    return task.pixels, task.logits


@MODES
@pytest.mark.parametrize('seg_logits', [True, False])
@torch.no_grad()
def test_predict_end_to_end(upsample, seg_logits):
    """Against the pipeline of the paper written out densely."""
    model = build_refine(upsample=upsample, test_cfg=dict(mode='whole', seg_logits=seg_logits))
    data = batch(model)
    logits = low_logits(model, data['inputs'], upsample)
    mask = entropy(logits) > model.selector.threshold
    assert 0.05 < mask.float().mean() < 0.95
    model.decode_head.extractor.engine = 'dense'
    pixels = SparseMap.from_mask(data['inputs'], mask)
    refined = model.decode_head.classifier(model.decode_head.extractor(pixels))
    rows = logits.permute(0, 2, 3, 1)[mask]
    expected = logits.permute(0, 2, 3, 1).clone()
    expected[mask] = model.decode_head.ensembler(rows, refined)
    model.decode_head.extractor.engine = 'auto'

    for i, sample in enumerate(model.predict(**data)):
        classes = sample.pred_sem_seg.data.squeeze(0)
        assert (classes != expected[i].argmax(-1)).float().mean() < 1e-3
        assert (sample.selected.data[0] != mask[i]).float().mean() < 1e-3
        assert (sample.low_res_sem_seg.data[0] != logits[i].argmax(0)).float().mean() < 1e-3
        assert ('seg_logits' in sample) == seg_logits
        if seg_logits:
            agree = sample.selected.data[0] == mask[i]
            torch.testing.assert_close(
                sample.seg_logits.data.permute(1, 2, 0)[agree], expected[i][agree],
                atol=1e-3, rtol=1e-3)


@MODES
@pytest.mark.filterwarnings('ignore:EntropySelector.alpha')
@torch.no_grad()
def test_nothing_selected_leaves_the_low_resolution_result_bit_for_bit(upsample):
    model = build_refine(upsample=upsample, alpha=1.7)
    data = batch(model)
    low = model.low_resolution(data['inputs']).full()
    assert torch.equal(model.inference(data['inputs'], [{}, {}]), low)
    for sample, logits in zip(model.predict(**data), low, strict=True):
        assert torch.equal(sample.pred_sem_seg.data.squeeze(0), logits.argmax(0))
        assert not sample.selected.data.any()


@torch.no_grad()
def test_everything_selected_works():
    model = build_refine(alpha=0.0)
    samples = model.predict(**batch(model))
    assert all(s.selected.data.float().mean() > 0.99 for s in samples)


@pytest.mark.parametrize('size', [(96, 101), (97, 130), (33, 64)])
@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one(size):
    model = build_refine()
    data = batch(model, size=size)
    both = model.inference(data['inputs'], [{}, {}])
    single = [model.inference(data['inputs'][i:i + 1], [{}]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(single), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('seg_logits', [True, False])
@torch.no_grad()
def test_padding_is_cut_off_and_never_selected(seg_logits):
    model = build_refine(alpha=0.0, test_cfg=dict(mode='whole', seg_logits=seg_logits))
    meta = dict(img_padding_size=[0, 5, 0, 16], ori_shape=(80, 96))
    samples = model.predict(**batch(model, **meta))
    for sample in samples:
        assert sample.pred_sem_seg.shape == sample.selected.shape == (80, 96)
        assert sample.low_res_sem_seg.shape == (80, 96)
    data = batch(model, **meta)
    pixels, _ = select(model, data, [s.metainfo for s in data['data_samples']])
    assert pixels.topology.indices[:, 1].max() == 79 and pixels.topology.indices[:, 2].max() == 95


@torch.no_grad()
def test_class_maps_of_a_flipped_image_are_flipped_back():
    model = build_refine(test_cfg=dict(mode='whole', seg_logits=False))
    flipped = batch(model, flip=True, flip_direction='horizontal')
    plain = model.predict(**batch(model))
    for a, b in zip(model.predict(**flipped), plain, strict=True):
        for name in ('pred_sem_seg', 'selected', 'low_res_sem_seg'):
            assert torch.equal(a.get(name).data.flip(-1).squeeze(0), b.get(name).data.squeeze(0))


@MODES
@pytest.mark.parametrize('meta', [
    dict(), dict(img_padding_size=[2, 5, 3, 16]), dict(flip=True, flip_direction='vertical')])
@pytest.mark.parametrize('ori_shape', [(192, 202), (300, 77), (60, 65)])
@torch.no_grad()
def test_class_maps_of_another_size_are_those_of_the_resized_logits(upsample, meta, ori_shape):
    """As mmseg resizes, without a map of logits in the result."""
    model = build_refine(upsample=upsample)
    expected = model.predict(**batch(model, ori_shape=ori_shape, **meta))
    model.test_cfg['seg_logits'] = False
    for sample, whole in zip(
            model.predict(**batch(model, ori_shape=ori_shape, **meta)), expected, strict=True):
        assert 'seg_logits' not in sample and sample.selected.shape == ori_shape
        first, second = whole.seg_logits.data.topk(2, dim=0).values
        clear = first - second > 1e-4
        assert clear.float().mean() > 0.99
        assert torch.equal(sample.pred_sem_seg.data[0][clear], whole.pred_sem_seg.data[0][clear])


@MODES
@torch.no_grad()
def test_slide_with_one_window_is_whole(upsample):
    model = build_refine(upsample=upsample)
    data = batch(model)
    whole = model.inference(data['inputs'], [{}, {}])
    model.test_cfg = dict(mode='slide', crop_size=(128, 128), stride=(64, 64), seg_logits=True)
    assert torch.equal(model.inference(data['inputs'], [{}, {}]), whole)


@torch.no_grad()
def test_slide_averages_windows_and_keeps_the_whole_image_as_context():
    model = build_refine(test_cfg=dict(mode='slide', crop_size=(64, 48), stride=(32, 32)))
    data = batch(model, size=(96, 101))
    low = model.low_resolution(data['inputs'])
    logits, mask = low.full(), low.entropy() > model.selector.threshold
    total, count = torch.zeros_like(logits), torch.zeros(96, 101)
    for top in (0, 32):
        for left in (0, 32, 53):
            window = (..., slice(top, top + 64), slice(left, left + 48))
            pixels = SparseMap.from_mask(data['inputs'][window], mask[window])
            part = logits[window]
            total[window] += pixels.write(
                part.clone(), model.decode_head.predict(pixels, pixels.read(part)))
            count[window] += 1
    expected = torch.where(mask[:, None], total / count, logits)
    found = model.inference(data['inputs'], [{}, {}])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(found.permute(0, 2, 3, 1)[~mask], logits.permute(0, 2, 3, 1)[~mask])


@examples(200)
@given(st.data())
def test_windows_that_are_allowed_cover_every_pixel_by_mmsegs_rule(data):
    """And those that are not would leave some out, in an image that is large enough."""
    side = st.integers(1, 12)
    height, width, *pair = (data.draw(side) for _ in range(6))
    crop, stride = pair[:2], pair[2:]
    fits = all(s <= c for s, c in zip(stride, crop, strict=True))
    covered = torch.zeros(height, width, dtype=torch.int64)
    with contextlib.nullcontext() if fits else pytest.raises(ValueError, match='must not exceed'):
        check_windows(crop, stride)
    if fits:
        for top, left, bottom, right in windows((height, width), crop, stride):
            assert (bottom - top, right - left) == (min(crop[0], height), min(crop[1], width))
            covered[top:bottom, left:right] += 1
        assert (covered > 0).all()
    else:
        big = torch.zeros(40, 40, dtype=torch.int64)
        for top, left, bottom, right in windows((40, 40), crop, stride):
            big[top:bottom, left:right] += 1
        assert (big == 0).any()


@torch.no_grad()
def test_stock_test_time_augmentation():
    init_default_scope('mmseg')
    from mmseg.registry import MODELS as MMSEG
    tta = MMSEG.build(dict(type='SegTTAModel', module=refine_cfg())).eval()
    model = tta.module
    views = [batch(model, batch_size=1), batch(model, batch_size=1, size=(64, 67),
                                               ori_shape=(96, 101)),
             batch(model, batch_size=1, flip=True, flip_direction='horizontal')]
    raw = dict(inputs=[[v['inputs'][0].byte()] for v in views],
               data_samples=[v['data_samples'] for v in views])
    result = tta.test_step(raw)[0]
    mean = 0
    for inputs, samples in zip(raw['inputs'], raw['data_samples'], strict=True):
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
        mean = mean + model.predict(**data)[0].seg_logits.data.softmax(0) / len(views)
    best = mean.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5  # a mean may be summed in another order
    assert clear.float().mean() > 0.99
    assert torch.equal(result.pred_sem_seg.data.squeeze(0)[clear], mean.argmax(0)[clear])


@pytest.mark.parametrize('case', ['plain', 'padded', 'stored'])
@torch.no_grad()
def test_loss_prediction_and_logits_refine_the_same_pixels(case):
    """With the same low-resolution logits, those of stored files included."""
    model = build_refine(joint_aug='post_lr' if case == 'stored' else 'pre_lr')
    data = batch(model, **(dict(img_padding_size=[2, 5, 3, 16], ori_shape=(77, 94))
                           if case == 'padded' else {}))
    rows = model.low_resolution(data['inputs']).full().permute(0, 2, 3, 1)
    inside = torch.ones(rows.shape[:3], dtype=torch.bool)
    if case == 'padded':
        inside[:, :3] = inside[:, 80:] = inside[:, :, :2] = inside[:, :, 96:] = False
    if case == 'stored':
        g = torch.Generator().manual_seed(0)
        index = torch.randint(-9, 20, (2, 1, 96, 101), generator=g)
        stored = torch.randn(2, 5, 4, 5, generator=g) * 3
        for i, sample in enumerate(data['data_samples']):
            sample.low_res_index = PixelData(data=index[i])
            sample.low_res_logits = PixelData(data=stored[i])
        inside = index[:, 0] >= 0
        rows = torch.stack([z.flatten(1).T[at.clamp(min=0)] for z, at in zip(
            stored, index[:, 0], strict=True)])
    mask = inside & (entropy(rows.flatten(0, 2)).view_as(inside) > model.selector.threshold)
    assert 0.05 < mask.float().mean() < 0.95
    seen = []
    model.decode_head.predict = lambda pixels, logits: seen.append((pixels, logits)) or logits
    model.decode_head.loss = lambda pixels, logits, labels: seen.append((pixels, logits)) or {}
    model.loss(**data), model.predict(**data), model(**data, mode='tensor')
    for pixels, logits in seen:
        assert torch.equal(pixels.topology.indices.long(), mask.nonzero())
        assert torch.equal(logits, rows[mask])
    assert len(seen) == 3


# ---- training ----------------------------------------------------------------------------


def test_a_training_step_changes_the_refiner_and_nothing_else():
    model = build_refine(selector=dict(type='mmsparse.EntropySelector', alpha=1.2,
                                       min_points=64)).train()
    before = copy.deepcopy(model.state_dict())
    assert not model.segmentor.training and model.decode_head.training
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05))
    data = batch(model)
    log = model.train_step(
        dict(inputs=[i for i in data['inputs'].byte()], data_samples=data['data_samples']),
        optimizer)
    assert set(log) >= {'loss', 'decode.loss_sparse_ce', 'decode.loss_ensemble_ce',
                        'decode.density'}
    assert 0 < log['decode.density'] < 1
    for name, value in model.state_dict().items():
        if name.startswith('segmentor.'):
            assert torch.equal(value, before[name]), name
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n, _ in model.decode_head.named_parameters('decode_head')}


def test_loss_is_the_mean_cross_entropy_over_selected_labeled_pixels():
    model = build_refine().train()
    data = batch(model)
    pixels, low_logits = select(model, data, [{}, {}])
    labels = pixels.read(torch.stack([s.gt_sem_seg.data[0] for s in data['data_samples']]))
    assert (labels == 255).any()
    refined, ensembled = copy.deepcopy(model.decode_head)(pixels, low_logits)
    losses = model.loss(**data)
    for name, logits in [('sparse', refined), ('ensemble', ensembled)]:
        torch.testing.assert_close(losses[f'decode.loss_{name}_ce'],
                                   F.cross_entropy(logits, labels, ignore_index=255))
    assert losses['decode.density'] == pytest.approx(len(pixels) / (2 * 96 * 101))


@pytest.mark.parametrize('case', ['nothing selected', 'nothing labeled'])
@pytest.mark.filterwarnings('ignore:EntropySelector.alpha')
def test_zero_loss_reaches_every_parameter(case):
    model = build_refine(alpha=1.7 if case == 'nothing selected' else 1.0).train()
    data = batch(model)
    if case == 'nothing labeled':
        for sample in data['data_samples']:
            sample.gt_sem_seg.data.fill_(255)
    losses = model.loss(**data)
    total = losses['decode.loss_sparse_ce'] + losses['decode.loss_ensemble_ce']
    total.backward()
    assert total == 0
    for name, p in model.decode_head.named_parameters():
        assert p.grad is not None and p.grad.abs().max() == 0, name


def test_learnable_selector_trains_beside_the_head():
    model = build_refine(selector=dict(type='mmsparse.LearnableSelector')).train()
    losses = model.loss(**batch(model))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert 'decode.loss_selector' in losses
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_several_losses_are_logged_by_name():
    losses = [dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True),
              dict(type='mmsparse.PointDiceLoss', loss_weight=0.5)]
    model = build_refine(decode_head=dict(
        type='mmsparse.SparseRefineHead', loss_decode=losses,
        extractor=dict(type='mmsparse.SparseUNet', channels=(8, 12)))).train()
    names = {k for k in model.loss(**batch(model)) if 'loss' in k}
    assert names == {f'decode.loss_{a}_{b}' for a in ('sparse', 'ensemble') for b in ('ce', 'dice')}


# ---- what else a result holds ---------------------------------------------------------------


@torch.no_grad()
def test_score_is_kept_on_request():
    model = build_refine(test_cfg=dict(mode='whole', keep_score=True))
    data = batch(model)
    sample = model.predict(**data)[0]
    torch.testing.assert_close(sample.selection_score.data[0],
                               model.low_resolution(data['inputs']).entropy()[0])
    assert 'selection_score' not in build_refine().predict(**batch(model))[0]


@torch.no_grad()
def test_budget_is_reported_in_the_data_sample():
    model = build_refine(selector=dict(type='mmsparse.EntropySelector', alpha=0.1,
                                       max_density=0.02))
    for sample in model.predict(**batch(model)):
        assert sample.selected.data.sum() == int(96 * 101 * 0.02)
        assert sample.metainfo['selection_threshold'] > 0.1


@torch.no_grad()
def test_low_resolution_scores_are_the_mean_over_flips():
    """Of the small image, in prediction and where the clean image is read in training."""
    flips = {'horizontal': [3], 'vertical': [2], 'diagonal': [2, 3]}
    model = build_refine(low_res_size=(36, 40), low_res_flips=('horizontal', 'diagonal'))
    plain = build_refine(low_res_size=(36, 40))
    images = torch.randint(256, (2, 3, 72, 80), dtype=torch.uint8)
    normalized = model.data_preprocessor.mean, model.data_preprocessor.std
    inputs = (images.flip(1) - normalized[0]) / normalized[1]  # BGR
    small = F.interpolate(inputs, size=(36, 40), mode='bilinear')

    def mean(x):
        views = [[], flips['horizontal'], flips['diagonal']]
        return torch.stack([plain.segmentor.encode_decode(
            x.flip(dims), [dict(img_shape=tuple(x.shape[2:]))] * 2).flip(dims)
            for dims in views]).mean(0)

    torch.testing.assert_close(model.low_resolution(inputs).scores, mean(small))
    torch.testing.assert_close(model.clean_logits(images), mean(inputs), rtol=1e-4, atol=1e-4)
    assert not model.low_resolution(inputs).scores.allclose(plain.low_resolution(inputs).scores)
    symmetric = build_refine(low_res_size=(36, 40), low_res_flips=tuple(flips))
    scores = symmetric.low_resolution(inputs).scores
    for dims in flips.values():
        torch.testing.assert_close(
            symmetric.low_resolution(inputs.flip(dims)).scores.flip(dims), scores)


# ---- configuration and bad input ----------------------------------------------------------


def test_a_minimal_config_takes_everything_else_from_the_segmentor():
    model = MODELS.build(dict(
        type='mmsparse.SparseRefineSegmentor', segmentor=segmentor_cfg(num_classes=7),
        selector=dict(type='mmsparse.EntropySelector', alpha=0.3)))
    assert model.num_classes == model.out_channels == model.decode_head.num_classes == 7
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28,
                                                                             103.53])
    assert model.align_corners is False and model.decode_head.threshold is None
    assert not hasattr(model.segmentor, 'auxiliary_head')
    assert not any(p.requires_grad for p in model.segmentor.parameters())


@pytest.mark.parametrize(('change', 'message'), [
    (dict(low_res_scale=0), r'low_res_scale must be in \(0, 1\], got 0'),
    (dict(low_res_scale=1.5), r'low_res_scale must be in \(0, 1\], got 1.5'),
    *((dict(low_res_size=size), r'low_res_size must be \(h, w\)')
      for size in [(64,), 64, (64, 0), (64, -1), (64.5, 64), (True, 64), '64']),
    *((dict(low_res_flips=flips), r"low_res_flips must be some of \('horizontal', 'vertical', ")
      for flips in ['horizontal', ('up',), ('vertical', 'vertical')]),
    *((dict(test_cfg=dict(SLIDE, **{key: value})), rf'test_cfg.{key} must be \(height, width\)')
      for key in ('crop_size', 'stride')
      for value in [64, None, (64,), (0, 32), (-8, 32), (32.0, 32), (32, True), '64', [[1, 2], 3]]),
    *((dict(test_cfg=dict(SLIDE, stride=stride)), r'test_cfg.stride .* must not exceed crop_size')
      for stride in [(65, 32), (32, 49), (1000, 1000)]),
    *((dict(test_cfg=dict(mode='whole', **{key: value})), f'test_cfg.{key} must be True or False')
      for key in ('seg_logits', 'keep_score') for value in (None, 1, 'no')),
    (dict(train_cfg=dict(sampler=1)), 'train_cfg has no keys'),
    (dict(upsample='cubic'), "upsample must be one of .*'cubic'"),
    (dict(joint_aug='none'), "joint_aug must be one of .*'none'"),
    (dict(pretrained='a.pth'), "got 'a.pth'; name the weights .* in segmentor_checkpoint"),
    (dict(test_cfg=dict(mode='tiles')), "'whole' or 'slide', got 'tiles'"),
    (dict(test_cfg=dict(mode='slide', crop_size=(8, 8))), r"keys \['crop_size', 'keep_score',"),
    (dict(test_cfg=dict(mode='whole', logits=True)), "got .*'logits'"),
    (dict(selector=dict(type='mmsparse.EntropySelector', alpha=0.3, num_classes=4)),
     "selector.num_classes is 4, but the segmentor's is 5; leave it out"),
    (dict(decode_head=dict(type='mmsparse.SparseRefineHead', num_classes=4)),
     "decode_head.num_classes is 4, but the segmentor's is 5"),
    (dict(decode_head=dict(type='mmsparse.SparseRefineHead',
                           ensembler=dict(type='mmsparse.GatedEnsembler', num_classes=4))),
     'ensembler.num_classes is 4'),
])
def test_bad_settings_fail_when_the_model_is_built(change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(refine_cfg() | change)


def test_unknown_selector_is_named():
    with pytest.raises(Exception, match='mmsparse.MagnitudeSelector'):
        MODELS.build(refine_cfg(selector=dict(type='mmsparse.MagnitudeSelector')))


@pytest.mark.parametrize('shape', [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_wrong_channel_count(shape):
    with pytest.raises(ValueError, match=r'images must be \[B, 3, H, W\], got'):
        build_refine().predict(torch.zeros(shape))


def test_image_smaller_than_the_deepest_stride():
    model = build_refine(alpha=0.0, low_res_size=(32, 32))
    with pytest.raises(ValueError, match='at least 4 x 4 pixels .* got 3 x 40'):
        model.predict(torch.randn(1, 3, 3, 40))


def test_nan_logits_are_named():
    model = build_refine()
    model.segmentor.decode_head.conv_seg.bias.data[0] = float('nan')
    with pytest.raises(ValueError, match='returned NaN logits'):
        model.predict(**batch(model))


def test_mask2former_scores_become_logits():
    """Scores that need not sum to one: clipped, logarithm, softmax renormalizes."""
    model = build_refine(upsample='bilinear')
    model.probabilities = True
    scores = torch.rand(1, 5, 48, 50)
    scores[:, 0] = 0
    model.segmentor.inference = lambda inputs, metas: scores
    low = model.low_resolution(torch.zeros(1, 3, 96, 100))
    expected = F.interpolate(scores, size=(96, 100), mode='bilinear', align_corners=False)
    torch.testing.assert_close(low.full().softmax(1), expected / expected.sum(1, keepdim=True),
                               atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_24_megapixel_image_stays_within_its_memory_bound(root):
    """1.75 GiB above weights and image, nearly all of it the low-resolution pass's own."""
    result = subprocess.run([sys.executable, '-W', 'ignore', 'tests/large_image_worker.py'],
                            cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found['shape'] == [4000, 6000]
    assert found['density'] == pytest.approx(0.118, abs=1e-4)
    assert found['changed'] > 0 and found['changed_outside'] == 0
    if found['peak_mib'] < 0:
        pytest.skip('the kernel does not let peak memory be reset')
    assert found['peak_mib'] < 1792
    assert found['peak_mib'] < found['low_mib'] + 512


@torch.no_grad()
@pytest.mark.parametrize('features', [('rgb',), ('p',), ('p', 'rgb')])
def test_features_of_a_pixel(features):
    channels = 5 * ('p' in features) + 3 * ('rgb' in features)
    model = build_refine(features=features, decode_head=dict(
        type='mmsparse.SparseRefineHead', extractor=dict(
            type='mmsparse.SparseUNet', in_channels=channels, channels=(8, 12))))
    data = batch(model)
    low = model.low_resolution(data['inputs'])
    mask = model.selector(data['inputs'], low, None).mask
    pixels, logits = model.gather(data['inputs'], mask, low)
    known = dict(rgb=data['inputs'].permute(0, 2, 3, 1)[mask], p=logits.softmax(1))
    torch.testing.assert_close(pixels.features, torch.cat([known[n] for n in features], 1))
    assert model.predict(**data)[0].pred_sem_seg.data.shape[1:] == data['inputs'].shape[2:]


@pytest.mark.parametrize('features', [(), ('rgb', 'rgb'), ('xy',)])
def test_unknown_features_are_refused(features):
    with pytest.raises(ValueError, match=r"features must be some of \('rgb', 'p'\), got"):
        build_refine(features=features)


def test_keys_of_before_are_accepted_with_a_warning():
    """``lr_`` read as learning rate."""
    with pytest.warns(DeprecationWarning, match='low_res_size'):
        model = build_refine(lr_size=(24, 40))
    assert model.low_res_size == (24, 40)
