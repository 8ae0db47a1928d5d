"""Checkpoints: the segmentor's, the whole model's, and those of something else."""
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmsparse.apis import init_model
from mmsparse.checkpoint import load_weights
from mmsparse.engine.loading import load_model
from mmsparse.registry import MODELS
from tests.models.tiny import batch, build_refine, refine_cfg, segmentor_cfg


@pytest.fixture
def segmentor_file(tmp_path):
    torch.manual_seed(1)
    segmentor = MODELS.build(segmentor_cfg())
    path = tmp_path / 'low.pth'
    torch.save(dict(state_dict=segmentor.state_dict(), meta={}), path)
    return path, segmentor


def test_segmentor_checkpoint_is_loaded_without_auxiliary_heads(segmentor_file):
    path, segmentor = segmentor_file
    assert any(k.startswith('auxiliary_head.') for k in segmentor.state_dict())
    cfg = refine_cfg(segmentor_checkpoint=str(path))
    cfg['segmentor']['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint='must/not/be/fetched.pth')
    model = MODELS.build(cfg)
    model.init_weights()
    for name, value in model.segmentor.state_dict().items():
        assert torch.equal(value, segmentor.state_dict()[name]), name


def test_missing_segmentor_checkpoint_names_the_file():
    model = MODELS.build(refine_cfg(segmentor_checkpoint='nowhere/low.pth'))
    with pytest.raises(FileNotFoundError, match='nowhere/low.pth'):
        model.init_weights()


@pytest.mark.parametrize(('other', 'message'), [
    (dict(num_classes=7), '2 of another shape .decode_head.conv_seg.weight'),
    (dict(backbone=dict(type='mmseg.ResNetV1c', depth=34, base_channels=8)), 'unknown .backbone'),
])
def test_segmentor_checkpoint_of_another_model(tmp_path, other, message):
    num_classes = other.pop('num_classes', 5)
    torch.save(dict(state_dict=MODELS.build(segmentor_cfg(num_classes, **other)).state_dict()),
               tmp_path / 'other.pth')
    model = MODELS.build(refine_cfg(segmentor_checkpoint=str(tmp_path / 'other.pth')))
    with pytest.raises(ValueError, match=f'other.pth does not fit.*{message}'):
        model.init_weights()


def test_a_plain_segmentors_checkpoint_is_refused_as_the_models(segmentor_file):
    with pytest.raises(ValueError, match='plain segmentor.*model.segmentor_checkpoint'):
        load_checkpoint(build_refine(), str(segmentor_file[0]))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save(dict(state_dict=torch.nn.Linear(2, 3).state_dict()), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"not one of SparseRefineSegmentor.*'bias', 'weight'"):
        load_checkpoint(build_refine(), str(tmp_path / 'x.pth'))


def test_the_models_own_checkpoint_needs_no_segmentor_file(tmp_path):
    trained = build_refine(seed=3)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'refined.pth')
    model = build_refine(seed=4, segmentor_checkpoint='only/for/training.pth')
    load_checkpoint(model, str(tmp_path / 'refined.pth'))
    data = batch(model)
    with torch.no_grad():
        assert torch.equal(model.inference(data['inputs'], [{}, {}]),
                           trained.inference(data['inputs'], [{}, {}]))


# ---- Inference: everything has to fit -----------------------------------------------------------


def narrow_unet():
    return refine_cfg(decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet', channels=(8, 12, 20))))


def refiner_cfg(width=4):
    return dict(
        type='mmsparse.CRMRefiner',
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', mean=[127] * 3, std=[64] * 3),
        backbone=dict(type='mmsparse.CRMResNet', base_channels=width, stem_channels=width),
        neck=dict(type='mmsparse.CRMFusionNeck', in_channels=(width, 4 * width, 16 * width)),
        head=dict(type='mmsparse.ImplicitPointHead'))


def refined_cfg(**kwargs):
    return dict(type='mmsparse.RefinedSegmentor', segmentor=segmentor_cfg(), refiner=refiner_cfg(),
                **kwargs)


def save(cfg, path, seed=1):
    """Random weights of a model as mmengine would save them; the model."""
    torch.manual_seed(seed)
    model = MODELS.build(cfg)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('a', )))),
               path)
    return model


def as_config(cfg):
    return Config(dict(model=cfg, default_scope='mmseg'))


MISFITS = {
    'SparseRefine, other classes': (refine_cfg(), refine_cfg(7), 'of another shape'),
    'SparseRefine, another U-Net': (refine_cfg(), narrow_unet(), r'of another shape \(decode_head'),
    'SparseRefine, a segmentor': (refine_cfg(), segmentor_cfg(), r'theirs\.pth: .*plain segmentor'),
    'CRM, another width': (refiner_cfg(), refiner_cfg(8), r'of another shape \(backbone'),
    'CRM, a segmentor': (refiner_cfg(), segmentor_cfg(), r'missing \(.* unknown \('),
    'wrapper without refiner, a segmentor': (refined_cfg(), segmentor_cfg(),
                                             r'missing \(segmentor\..* unknown \(backbone'),
    'wrapper, a refiner': (refined_cfg(), refiner_cfg(), r'missing \(segmentor\.'),
    'segmentor, a wrapper': (segmentor_cfg(), refined_cfg(), r'unknown \(segmentor\.'),
    'segmentor, other classes': (segmentor_cfg(), segmentor_cfg(3), 'decode_head.conv_seg.weight'),
    'segmentor, a deeper one': (
        segmentor_cfg(), segmentor_cfg(backbone=dict(
            type='mmseg.ResNetV1c', depth=34, base_channels=8, norm_cfg=dict(type='BN'))),
        r'\d\d unknown \(backbone'),
}


@pytest.mark.parametrize('case', MISFITS)
def test_weights_of_another_model_are_refused(tmp_path, case):
    """By what every inference tool loads with; mmengine predicts with random weights there."""
    ours, theirs, message = MISFITS[case]
    save(theirs, tmp_path / 'theirs.pth')
    with pytest.raises(ValueError, match=message):
        init_model(as_config(ours), tmp_path / 'theirs.pth', device='cpu')


@pytest.mark.parametrize('cfg', [refine_cfg(), refiner_cfg(), refined_cfg(), segmentor_cfg()],
                         ids=lambda cfg: cfg['type'])
def test_own_weights_are_loaded(tmp_path, cfg):
    saved = save(cfg, tmp_path / 'own.pth', seed=1).state_dict()
    torch.manual_seed(2)
    model = load_model(as_config(cfg), tmp_path / 'own.pth', 'cpu')
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert model.dataset_meta == dict(classes=('a', ))


def test_auxiliary_heads_may_differ(tmp_path):
    with_one = segmentor_cfg()
    without = {k: v for k, v in with_one.items() if k != 'auxiliary_head'}
    for ours, theirs in ((with_one, without), (without, with_one)):
        saved = save(theirs, tmp_path / 'theirs.pth').state_dict()
        model = load_model(as_config(ours), tmp_path / 'theirs.pth', 'cpu')
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items()
                   if not key.startswith('auxiliary_head'))


@pytest.mark.parametrize('load', [load_weights, load_checkpoint], ids=['ours', "mmengine's"])
def test_a_wrapper_takes_the_segmentors_own_checkpoint(tmp_path, load, mmengine_allowed):
    """Beside the refiner's, as its docstring says; a checkpoint of both replaces both."""
    alone = save(segmentor_cfg(), tmp_path / 'alone.pth', seed=1).state_dict()
    refiner = save(refiner_cfg(), tmp_path / 'refiner.pth', seed=2).state_dict()
    cfg = refined_cfg(refiner_checkpoint=str(tmp_path / 'refiner.pth'))
    torch.manual_seed(3)
    model = MODELS.build(cfg)
    load(model, str(tmp_path / 'alone.pth'))
    for part, weights in ((model.segmentor, alone), (model.refiner, refiner)):
        assert all(torch.equal(value, weights[key]) for key, value in part.state_dict().items())
    both = save(refined_cfg(), tmp_path / 'both.pth', seed=4).state_dict()
    load(model, str(tmp_path / 'both.pth'))
    assert all(torch.equal(value, both[key]) for key, value in model.state_dict().items())


def test_a_detectors_own_checkpoint(tmp_path):
    """The other wrapper; its detector stands for any."""
    from mmsparse.models.crm.wrappers import load_model_alone
    wrapper = torch.nn.Module()
    wrapper.detector, wrapper.refiner = torch.nn.Linear(1, 1), torch.nn.Linear(2, 2)
    wrapper.register_load_state_dict_pre_hook(partial(load_model_alone, 'detector'))
    own = {f'refiner.{k}': v.clone() for k, v in wrapper.refiner.state_dict().items()}
    alone = torch.nn.Linear(1, 1).state_dict()
    wrapper.load_state_dict(alone)
    found = wrapper.state_dict()
    assert all(torch.equal(found[f'detector.{k}'], v) for k, v in alone.items())
    assert all(torch.equal(found[k], v) for k, v in own.items())
