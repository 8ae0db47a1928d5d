"""Checkpoints: the segmentor's, the whole model's, and those of something else."""
import pytest
import torch
from mmengine.runner import load_checkpoint

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
