"""Settings of a wrapped model reach its wrapper, the metrics and the tools."""
import copy
import itertools

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.engine.calibration import score_curve
from mmsparse.engine.comparison import compare
from mmsparse.hosts import ignore_index_of
from mmsparse.registry import METRICS, MODELS
from tests.models.crm.builders import Fake, blobs, sample, with_scores
from tests.models.tiny import (
    PREPROCESSOR,
    Answers,
    batch,
    build_refine,
    low_logits,
    refine_cfg,
    refined_cfg,
    segmentor_cfg,
)


def head(cfg, **settings):
    """The segmentor's config with settings of its head."""
    cfg = copy.deepcopy(cfg)
    cfg['decode_head'] |= settings
    return cfg


def refine(selector=None, seed=0, upsample='nearest', alpha=1.1, **settings):
    return build_refine(seed=seed, segmentor=head(segmentor_cfg(), **settings), upsample=upsample,
                        selector=selector or dict(type='mmsparse.EntropySelector', alpha=alpha))


# ---- ignore_index -------------------------------------------------------------------------------

@pytest.mark.parametrize(('given', 'expected'), [(3, 3), (255, 255), (None, 255)])
def test_ignore_index_of_a_segmentor(given, expected):
    model = refine(ignore_index=given)
    assert ignore_index_of(model.segmentor) == expected
    assert model.ignore_index == model.decode_head.ignore_index == expected
    assert segmentor_of(ignore_index=given).ignore_index == expected


def segmentor_of(policy=None, **settings):
    """A RefinedSegmentor of a segmentor with such a head; its refiner changes nothing."""
    cfg = refined_cfg(segmentor=head(segmentor_cfg(settings.get('num_classes', 5)), **settings),
                      class_policy=policy)
    model = MODELS.build(cfg).eval()
    model.refiner = Fake()
    return model


def test_the_refiner_does_not_learn_from_what_the_segmentor_ignores():
    model = refine(ignore_index=3)
    data = batch(model)
    model.train()
    for s in data['data_samples']:
        s.gt_sem_seg.data[s.gt_sem_seg.data == 255] = 3
    low = model.low_resolution(data['inputs'])
    pixels, low_logits = model.gather(data['inputs'], model.selector(data['inputs'], low).mask, low)
    labels = pixels.read(torch.stack([s.gt_sem_seg.data[0] for s in data['data_samples']]))
    _, ensembled = copy.deepcopy(model.decode_head)(pixels, low_logits)
    known = labels != 3
    assert 0 < known.sum() < len(labels)
    torch.testing.assert_close(model.loss(**data)['decode.loss_ensemble_ce'],
                               F.cross_entropy(ensembled[known], labels[known]))


def test_the_learned_selector_does_not_learn_from_it_either():
    model = refine(selector=dict(type='mmsparse.LearnableSelector'), ignore_index=3)
    data = batch(model)
    model.train()
    for s in data['data_samples']:
        s.gt_sem_seg.data[:, :40] = 3
    found = model.loss(**data)['decode.loss_selector']
    low = model.low_resolution(data['inputs'])
    labels = torch.stack([s.gt_sem_seg.data[0] for s in data['data_samples']])
    known = (labels != 3)
    wrong = (low.classes() != labels)[known].double()
    odds = model.selector.log_odds(data['inputs'], low)[known].double()
    weight = (1 - wrong).sum() / wrong.sum()
    losses = -(weight * wrong * F.logsigmoid(odds) + (1 - wrong) * F.logsigmoid(-odds))
    torch.testing.assert_close(found.double(), losses.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('part', 'name'), [('decode_head', 'ignore_index'),
                                            ('decode_head', 'num_classes'),
                                            ('selector', 'num_classes')])
def test_a_part_may_not_contradict_the_segmentor(part, name):
    cfg = refine_cfg()
    cfg[part] = dict(cfg[part], **{name: 7})
    with pytest.raises(ValueError, match=f"{part}.{name} is 7, but the segmentor's is .*leave it"):
        MODELS.build(cfg)


def test_calibration_leaves_out_what_the_model_ignores():
    model = refine(ignore_index=3)
    data = batch(model, 1)
    data['data_samples'][0].gt_sem_seg.data[:, :3] = 3
    raw = dict(inputs=[torch.randint(256, (3, 96, 101), dtype=torch.uint8)],
               data_samples=data['data_samples'])
    labels = data['data_samples'][0].gt_sem_seg.data
    curve = score_curve(model, [raw])
    assert curve.right.sum() + curve.wrong.sum() == (labels != 3).sum() < labels.numel()


def test_compare_ignores_what_the_models_ignore():
    from mmengine.registry import init_default_scope
    from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    loader = ConfigDict(
        batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='mmsparse.SceneDataset', length=1, size=(64, 128),
                     pipeline=[dict(type='mmsparse.RenderScene'), dict(type='PackSegInputs')]))
    full = compare(dict(a=Answers(255)), dict(a=loader))['a'].iou
    # class 0 is ignored: what is left is never class 0
    part = compare(dict(a=Answers(0)), dict(a=loader))['a'].iou
    first = next(iter(full))
    assert full[first] > 0 and part[first] == 0
    with pytest.raises(ValueError, match=r"one ignore_index, got \{'a': 0, 'b': 255\}"):
        compare(dict(a=Answers(0), b=Answers(255)), dict(a=loader, b=loader))


METRICS_ON_LABELS = dict(
    SelectorMetric={}, LowResIoUMetric={}, IoUBySizeMetric={}, ThinStructureMetric={},
    BoundaryAccuracyMetric=dict(classes=4))


@pytest.mark.parametrize(('name', 'settings'), METRICS_ON_LABELS.items())
def test_metrics_go_by_the_ignore_index_of_the_model(name, settings):
    """Figures are those of the same maps with the ignored pixels marked by 255."""
    g = torch.Generator().manual_seed(0)
    fields = dict(
        gt_sem_seg=torch.randint(4, (1, 24, 30), generator=g).repeat_interleave(3, 1),
        pred_sem_seg=torch.randint(3, (1, 24, 30), generator=g).repeat_interleave(3, 1),
        low_res_sem_seg=torch.randint(3, (1, 72, 30), generator=g),
        selected=torch.rand(1, 72, 30, generator=g) < 0.5)
    fields['coarse_sem_seg'] = fields['low_res_sem_seg']

    def figures(label, **kwargs):
        metric = METRICS.build(dict(type=f'mmsparse.{name}', **settings, **kwargs))
        metric.dataset_meta = dict(classes=tuple('abcd'))
        maps = {k: dict(data=v) for k, v in (fields | dict(gt_sem_seg=label)).items()}
        metric.process({}, [maps | dict(ignore_index=told)])
        return metric.evaluate(1)

    label = fields['gt_sem_seg']
    told = 3
    inherited = figures(label)
    told = 255
    marked = figures(torch.where(label == 3, 255, label))
    counted = figures(label)
    explicit = figures(label, ignore_index=3)
    assert str(inherited) == str(marked) == str(explicit) != str(counted)


@torch.no_grad()
def test_results_say_what_the_model_ignores():
    model = refine(ignore_index=3)
    assert {s.ignore_index for s in model.predict(**batch(model))} == {3}
    refined = with_scores(segmentor_of(ignore_index=3), blobs())
    out, = refined.predict(torch.zeros(1, 3, 120, 160), [sample((120, 160))])
    assert out.ignore_index == 3


# ---- align_corners ------------------------------------------------------------------------------

@pytest.mark.parametrize('align_corners', [False, True])
@torch.no_grad()
def test_align_corners(align_corners):
    """Low-resolution logits are enlarged, and results resized, as the segmentor does it."""
    model = refine(upsample='bilinear', align_corners=align_corners)
    assert model.align_corners == model.decode_head.align_corners == align_corners
    data = batch(model)
    low = model.low_resolution(data['inputs'])
    expected = low_logits(model, data['inputs'], 'bilinear')
    torch.testing.assert_close(low.full(), expected, atol=1e-3, rtol=1e-4)
    entropy = -(expected.softmax(1) * expected.log_softmax(1)).sum(1)
    torch.testing.assert_close(low.entropy(), entropy, atol=1e-3, rtol=1e-3)
    logits = model.inference(data['inputs'], [{}, {}])
    shape = (150, 170)
    for s, z in zip(model.predict(**batch(model, ori_shape=shape)), logits, strict=True):
        torch.testing.assert_close(
            s.seg_logits.data, F.interpolate(z[None], size=shape, mode='bilinear',
                                             align_corners=align_corners)[0])
    assert segmentor_of(align_corners=align_corners).align_corners == align_corners


@pytest.mark.parametrize('align_corners', [False, True])
@torch.no_grad()
def test_align_corners_of_an_ensemble(align_corners):
    model = MODELS.build(dict(
        type='mmsparse.SegEnsemble', segmentors=[head(segmentor_cfg(),
                                                      align_corners=align_corners)])).eval()
    scores = torch.randn(1, 5, 6, 7)
    model.segmentors[0].inference = lambda inputs, metas: scores
    found = model.encode_decode(torch.zeros(1, 3, 30, 40), [{}])
    expected = F.interpolate(scores, size=(30, 40), mode='bilinear', align_corners=align_corners)
    torch.testing.assert_close(found, expected.log_softmax(1), atol=1e-5, rtol=1e-5)


# ---- thresholds ---------------------------------------------------------------------------------

@pytest.mark.parametrize(('mode', 'threshold'), list(itertools.product(
    ['component', 'prob'], [0.3, 0.5, 0.8])))
@torch.no_grad()
def test_the_threshold_of_a_sigmoid_in_both_modes(mode, threshold):
    """A refiner that changes nothing leaves the classes that the threshold says."""
    model = segmentor_of(dict(mode=mode, min_area=10**6), num_classes=2, out_channels=1,
                         threshold=threshold)
    scores = blobs(classes=1)
    with_scores(model, scores)
    out, = model.predict(torch.zeros(1, 3, 120, 160), [sample((120, 160))])
    p = scores[:, 0].double().sigmoid()
    certain = (p - threshold).abs() > 1e-5  # rounding may decide the others
    expected = (p > threshold).long()
    for field in ('pred_sem_seg', 'coarse_sem_seg'):
        assert torch.equal(out.get(field).data[certain], expected[certain])
    assert 0 < expected.float().mean() < 1


@pytest.mark.parametrize('threshold', [0, 1, -0.5])
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(ValueError, match=rf'must be in \(0, 1\), got {threshold}'):
        segmentor_of(num_classes=2, out_channels=1, threshold=threshold)


# ---- test_cfg of the wrapped model --------------------------------------------------------------

SLIDE = ConfigDict(mode='slide', crop_size=(40, 40), stride=(24, 24))


@torch.no_grad()
def test_sliding_windows_of_the_wrapped_model():
    """Each wrapper's coarse scores are those of the segmentor in the mode of its own test_cfg."""
    size = (64, 72)
    image = torch.randn(1, 3, *size)
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)
    cfg = segmentor_cfg(test_cfg=SLIDE)
    refined = segmentor_of()
    refined.segmentor = MODELS.build(cfg).eval()
    expected = refined.segmentor.slide_inference(image, [dict(meta)])
    whole = refined.segmentor.whole_inference(image, [dict(meta)])
    assert not torch.allclose(expected, whole)
    given = dict(meta)
    assert torch.equal(refined.upsampled(image, given).full(), expected) and given == meta

    model = build_refine(segmentor=cfg, low_res_scale=1.0)
    model.segmentor = refined.segmentor
    assert torch.equal(model.low_resolution(image).scores, expected)

    ensemble = MODELS.build(dict(type='mmsparse.SegEnsemble', segmentors=[cfg, cfg])).eval()
    ensemble.segmentors[0] = ensemble.segmentors[1] = refined.segmentor
    torch.testing.assert_close(ensemble.inference(image, [given]), expected.log_softmax(1))
    assert given == meta, 'the second member saw the size of a window'


@pytest.mark.parametrize('settings', [dict(test_cfg=SLIDE), dict(train_cfg=dict(a=1))])
def test_settings_that_a_wrapper_does_not_have_are_refused(settings):
    name, = settings
    for wrapper, part in (('RefinedSegmentor', 'segmentor'), ('RefinedDetector', 'detector')):
        with pytest.raises(ValueError, match=f'{wrapper}.{name} must be None, got .*its own'):
            MODELS.build({'type': f'mmsparse.{wrapper}', part: segmentor_cfg(), 'refiner': {},
                          **settings})
    if name == 'train_cfg':
        with pytest.raises(ValueError, match='train_cfg has no keys'):
            build_refine(**settings)


# ---- normalization ------------------------------------------------------------------------------

def wrappers_of(preprocessor, **given):
    """Key and config of every model around one that has this preprocessor."""
    part = segmentor_cfg(data_preprocessor=preprocessor)
    return [
        ('segmentor', refine_cfg(segmentor=part, **given)),
        ('segmentors[0]', dict(type='mmsparse.SegEnsemble', segmentors=[part] * 2, **given)),
        ('segmentor', refined_cfg(segmentor=part, **given)),
        ('detector', dict(type='mmsparse.RefinedDetector', detector=part, refiner={}, **given))]


@pytest.mark.parametrize('change', [
    dict(mean=[127.5] * 3), dict(std=[1, 1, 1]), dict(bgr_to_rgb=False),
    dict(bgr_to_rgb=False, rgb_to_bgr=True)], ids=str)
def test_a_part_sees_what_it_has_learned_from(change):
    key, value = next(iter(change.items()))
    own = PREPROCESSOR | change
    for name, cfg in wrappers_of(own, data_preprocessor=PREPROCESSOR):
        with pytest.raises(ValueError) as error:
            MODELS.build(cfg)
        given = PREPROCESSOR[key]
        assert str(error.value).startswith(
            f'model.data_preprocessor.{key} is {given}, but model.{name}.data_preprocessor.{key} '
            f'is {value}, and both see the same images')


def test_a_runner_that_fills_in_another_normalization_is_refused(tmp_path):
    """It gives the top level's to a model that has none of its own."""
    own = PREPROCESSOR | dict(mean=[127.5] * 3)
    cfg = dict(model=refine_cfg(segmentor=segmentor_cfg(data_preprocessor=own)),
               work_dir=str(tmp_path), default_scope='mmseg')
    assert MODELS.build(cfg['model']).data_preprocessor.mean.flatten().tolist() == own['mean']
    with pytest.raises(ValueError, match='a runner gives data_preprocessor of the top level'):
        Runner.from_cfg(Config(cfg | dict(data_preprocessor=PREPROCESSOR)))
    runner = Runner.from_cfg(Config(cfg | dict(data_preprocessor=own)))
    assert runner.model.data_preprocessor.mean.flatten().tolist() == own['mean']


def test_padding_may_be_another():
    crop = PREPROCESSOR | dict(size=(64, 64))
    model = build_refine(segmentor=segmentor_cfg(), data_preprocessor=crop)
    assert model.data_preprocessor.size == (64, 64)
    members = [segmentor_cfg(), segmentor_cfg(data_preprocessor=crop)]
    with pytest.raises(ValueError, match=r'segmentors\[1\].data_preprocessor.size is \(64, 64\)'):
        MODELS.build(dict(type='mmsparse.SegEnsemble', segmentors=members))
    MODELS.build(dict(type='mmsparse.SegEnsemble', segmentors=members, data_preprocessor=crop))


# ---- what the pictures show ---------------------------------------------------------------------

@pytest.mark.parametrize('ignore_index', [0, 255])
def test_the_visualizer_paints_no_error_where_the_model_ignores(ignore_index, tmp_path):
    """As if the ignored pixels were marked by 255."""
    from mmsparse.visualization import RefinementVisualizer, refinement_panels
    label = torch.tensor([[0, 1], [1, 1]])
    low, refined = torch.ones(2, 2, dtype=torch.int64), label.clone()
    maps = dict(low_res_sem_seg=low, pred_sem_seg=refined, gt_sem_seg=label,
                selected=torch.ones(2, 2, dtype=torch.bool))
    result = SegDataSample(metainfo=dict(ignore_index=ignore_index), **{
        name: PixelData(data=data[None]) for name, data in maps.items()})
    meta = dict(classes='ab', palette=[[9, 9, 9], [99, 99, 99]])
    visualizer = RefinementVisualizer()
    visualizer.dataset_meta = meta
    image = np.zeros((2, 2, 3), np.uint8)
    visualizer.add_datasample('a', image, result, out_file=str(tmp_path / 'a.png'))
    marked = torch.where(label == ignore_index, 255, label).numpy()
    expected = refinement_panels(image, low.numpy(), maps['selected'].numpy(), refined.numpy(),
                                 marked, **meta)
    assert np.array_equal(cv2.imread(str(tmp_path / 'a.png')), expected)
    assert np.array_equal(marked, label.numpy()) == (ignore_index == 255)
