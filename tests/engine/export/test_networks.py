"""ONNX files against what the models predict, in onnxruntime."""
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.engine.export import export_onnx
from mmsparse.engine.export.onnx_file import PLAIN
from mmsparse.registry import MODELS
from tests.models.specialize_fuse.builders import segmentor as specialize_fuse
from tests.models.swiftnet.builders import PYR3, R18, build, load
from tests.models.tiny import PREPROCESSOR, segmentor_cfg, vary_classes
from tests.tools.in_process import run_tool


def model(name):
    net = build(load(name)).eval()
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return net


@pytest.mark.slow
@pytest.mark.parametrize('name', [R18, PYR3])
def test_the_file_computes_what_the_model_does(tmp_path, name):
    assert export_onnx(model(name), tmp_path / 'm.onnx', (512, 1024), False).difference < 1e-4


@pytest.mark.slow
def test_grids_that_do_not_divide_the_size(tmp_path):
    """A stride-32 map of 7x11: 8 and 4 rows of cells that overlap."""
    net = model(R18)
    assert export_onnx(net, tmp_path / 'm.onnx', (210, 330), False).difference < 1e-4
    assert export_onnx(net, tmp_path / 'c.onnx', (210, 330), True).difference < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / 'c.onnx'))
    classes, = session.run(None, {'image': np.zeros((1, 3, 210, 330), np.float32)})
    assert classes.dtype == np.int64 and classes.shape == (1, 210, 330)


SLIDE = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 26)))
PADDED = dict(data_preprocessor=dict(PREPROCESSOR, test_cfg=dict(size_divisor=32)))
PLAIN_PIXELS = dict(data_preprocessor=dict(type='mmseg.SegDataPreProcessor', test_cfg=dict(
    size=(80, 70)), pad_val=9))


def small(num_classes=5, head=None, **kwargs):
    cfg = segmentor_cfg(num_classes, auxiliary_head=None, **kwargs)
    cfg['backbone'] |= dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    cfg['decode_head'] |= dict(in_channels=8, channels=8) | (head or {})
    return cfg


CASES = dict(
    slide_padded_one_channel=(True, lambda: small(
        **SLIDE, **PADDED, num_classes=2, head=dict(out_channels=1, threshold=0.5))),
    one_channel_scores=(False, lambda: small(num_classes=2, head=dict(out_channels=1))),
    plain_pixels=(False, lambda: small(**PLAIN_PIXELS)),
    ensemble_that_slides=(True, lambda: dict(
        type='mmsparse.SegEnsemble', segmentors=[small(**SLIDE), small()])))


@torch.no_grad()
def predicted(model, picture):
    """mmseg's own way from a loaded picture, uint8 BGR, to a sample."""
    size = picture.shape[:2]
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
    inputs = [torch.from_numpy(picture.transpose(2, 0, 1).copy())]
    return model.test_step(dict(inputs=inputs, data_samples=[sample]))[0]


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * (not name.startswith('slide')))
    for name in CASES])
def test_the_file_gives_what_predict_gives(name, tmp_path):
    """Windows, padding, thresholds and channel order included."""
    include_argmax, cfg = CASES[name]
    size = (64, 90)
    picture = np.random.default_rng(1).integers(256, size=(*size, 3), dtype=np.uint8)
    tiny = vary_classes(MODELS.build(ConfigDict(cfg())).eval(),
                        torch.from_numpy(picture).permute(2, 0, 1), scale=100)
    assert export_onnx(tiny, tmp_path / 'm.onnx', size, include_argmax).difference < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ['m.onnx', 'run_onnx.py']

    sample = predicted(tiny, picture)
    given = picture if name == 'plain_pixels' else picture[..., ::-1]  # the others see RGB
    found, = onnxruntime.InferenceSession(str(tmp_path / 'm.onnx')).run(
        None, {'image': given.transpose(2, 0, 1)[None].astype(np.float32)})
    if include_argmax:
        expected = sample.pred_sem_seg.data.long().view(1, *size).numpy()
        assert found.shape == expected.shape and found.dtype == np.int64
        assert (found != expected).mean() < 1e-3 and len(np.unique(found)) > 1
    else:
        expected = sample.seg_logits.data.numpy()[None]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_head_that_skips_cells_is_written_densely(tmp_path):
    model = specialize_fuse(fusion=dict(sparse=True))
    assert export_onnx(model, tmp_path / 'm.onnx', (96, 128), False).difference < 1e-4


class Brighter:
    """A step of a pipeline that is not in the file."""

    def __call__(self, results):
        results['img'] = results['img'] // 2 + 100
        return results


def test_a_file_that_differs_from_the_model_is_not_left(tmp_path):
    path = tmp_path / 'm.onnx'
    path.write_text('an older one')
    pipeline = Compose([PLAIN[0], Brighter(), PLAIN[1]])
    tiny = MODELS.build(ConfigDict(small())).eval()
    with pytest.raises(ValueError, match='the file differs from the model by'):
        export_onnx(tiny, path, (64, 64), False, pipeline)
    assert path.read_text() == 'an older one' and len(list(tmp_path.iterdir())) == 1


def test_what_is_no_segmentor_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match='Conv2d is no segmentor'):
        export_onnx(nn.Conv2d(3, 3, 1), tmp_path / 'm.onnx', (64, 64), False)


def test_the_tool_writes_once(root, tmp_path):
    config = root / 'configs/swiftnet' / f'{R18}.py'
    command = ['tools/export_onnx.py', config, '--shape', '96', '130', '--out', tmp_path / 'm.onnx']
    result = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'largest relative difference in onnxruntime' in result.stdout
    again = run_tool(root / command[0], *command[1:], cwd=root)
    assert again.returncode == 1
    assert again.stderr.endswith('m.onnx exists; --force writes over it\n')


REFINED = """
_base_ = '{base}'
low = dict(
    type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor'),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8),
    decode_head=dict(type='FCNHead', in_channels=64, channels=16, num_classes=5),
    test_cfg=dict(mode='whole'))
model = dict(
    _delete_=True, type='mmsparse.RefinedSegmentor', segmentor=low, refiner={{{{_base_.model}}}})
"""


@pytest.fixture
def tool(root, monkeypatch):
    """The tool as a module; its `main` takes the arguments."""
    monkeypatch.syspath_prepend(str(root / 'tools'))
    import export_onnx as tool

    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *map(str, arguments)])
        tool.main()

    yield SimpleNamespace(main=main, keeping_pipeline=tool.keeping_pipeline)
    for name in ('export_onnx', 'command_line'):
        sys.modules.pop(name, None)


def test_a_model_that_refines_objects_is_refused(root, tmp_path, tool):
    (tmp_path / 'refined.py').write_text(REFINED.format(
        base=root / 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'))
    with pytest.raises(SystemExit, match='export the segmentor and the refiner, each by its own'):
        tool.main(tmp_path / 'refined.py', '--out', tmp_path / 'm.onnx')
    assert not (tmp_path / 'm.onnx').exists()


def test_a_detector_is_refused_with_the_reason(root, tmp_path, tool):
    config = root / 'configs/effseg/mask-rcnn-plus_r50_fpn_1x_coco.py'
    options = ('--cfg-options', 'model.backbone.init_cfg=None', 'model.backbone.depth=18',
               'model.neck.in_channels=[64,128,256,512]')
    with pytest.raises(SystemExit, match='MaskRCNN is a detector: .* which mmdeploy exports'):
        tool.main(config, '--out', tmp_path / 'm.onnx', *options)


TINY_CRM = """
_base_ = '{base}'
model = dict(
    backbone=dict(base_channels=4, stem_channels=4, init_cfg=None),
    neck=dict(in_channels=(4, 16, 64)), test_cfg=dict(scales=(0.5, 1.0)))
"""


@pytest.mark.slow
def test_the_tool_writes_a_refiner(root, tmp_path, tool, capsys):
    (tmp_path / 'crm.py').write_text(TINY_CRM.format(
        base=root / 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'))
    tool.main(tmp_path / 'crm.py', '--shape', 64, 80, '--out', tmp_path / 'm.onnx')
    assert 'largest relative difference in onnxruntime' in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / 'm.onnx'))
    assert [node.name for node in session.get_inputs()] == ['image', 'mask']


TINY_SPARSEREFINE = """
_base_ = '{base}'
model = dict(
    segmentor=dict(
        _delete_=True, type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(type='ResNetV1c', depth=18, base_channels=4),
        decode_head=dict(type='FCNHead', in_channels=32, channels=32, num_convs=0, num_classes=5,
                         concat_input=False),
        test_cfg=dict(mode='whole')),
    segmentor_checkpoint=None, decode_head=dict(extractor=dict(channels=(4, 4))),
    selector=dict(alpha=0.1))
"""


@pytest.mark.slow
def test_the_tool_writes_a_refining_model(root, tmp_path, tool, capsys):
    """With the names and colors that its test dataset has."""
    (tmp_path / 'refining.py').write_text(TINY_SPARSEREFINE.format(
        base=root / 'configs/sparserefine/sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'))
    tool.main(tmp_path / 'refining.py', '--shape', 64, 96, '--out', tmp_path / 'm.onnx',
              '--include-argmax')
    assert 'on a made picture of which it refines' in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / 'm.onnx'))
    assert [node.name for node in session.get_outputs()] == ['classes', 'selected']
    facts = json.loads(session.get_modelmeta().custom_metadata_map['mmsparse'])
    assert 'road' in facts['classes'] and len(facts['palette']) == len(facts['classes'])


@pytest.mark.parametrize('step, note', [
    (dict(type='Resize', scale=(64, 32), keep_ratio=True), ''),
    (dict(type='Resize', scale_factor=0.5), 'makes 16x32 of a picture of 32x64')])
def test_a_pipeline_that_changes_the_size_is_noted(tool, capsys, step, note):
    init_default_scope('mmseg')
    steps = [dict(type='LoadImageFromFile'), step, dict(type='LoadAnnotations'),
             dict(type='PackSegInputs')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='R', dataset=dict(pipeline=steps)))))
    assert (tool.keeping_pipeline(cfg, (32, 64)) is None) == bool(note)
    assert note in capsys.readouterr().out
