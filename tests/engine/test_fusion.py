"""What folding must leave alone, and what else computes.

On the five baselines: tests/models/sparserefine/test_cityscapes_configs.py.
"""
import sys

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.engine.fusion import fuse_for_inference
from tests.models.tiny import batch, build_refine, segmentor_cfg


@torch.no_grad()
def shake(model):
    """Norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
            module.weight.normal_(), module.bias.normal_()
    model.eval()  # backbones of mmseg return nothing from it
    return model


@torch.no_grad()
def test_a_norm_before_its_convolution_is_not_folded():
    torch.manual_seed(0)
    model = nn.Sequential(
        ConvModule(3, 8, 3, norm_cfg=dict(type='BN')),
        ConvModule(8, 8, 3, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv')))
    x = torch.randn(2, 3, 17, 19)
    before = shake(model)(x)
    assert fuse_for_inference(model) is model
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    assert isinstance(model[0].norm, nn.Identity) and isinstance(model[1].norm, nn.BatchNorm2d)
    assert not any(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_norm_behind_an_activation_is_not_folded():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1),
                          nn.BatchNorm2d(4))
    x = torch.randn(2, 3, 17, 19)
    before = shake(model)(x)
    torch.testing.assert_close(fuse_for_inference(model)(x), before, atol=1e-5, rtol=1e-5)
    assert [isinstance(model[k], nn.BatchNorm2d) for k in (2, 4)] == [True, False]


BACKBONES = dict(
    resnet=dict(type='ResNetV1c', depth=18), resnext=dict(type='ResNeXt', depth=50),
    hrnet=dict(type='HRNet', extra={
        f'stage{k}': dict(
            num_modules=1, num_branches=k, block='BOTTLENECK' if k == 1 else 'BASIC',
            num_blocks=(1,) * k, num_channels=tuple(8 * 2**b for b in range(k)))
        for k in range(1, 5)}),
    mobilenet_v2=dict(type='MobileNetV2'), mobilenet_v3=dict(type='MobileNetV3'),
    unet=dict(type='UNet', base_channels=8), stdc=dict(
        type='STDCNet', stdc_type='STDCNet1', in_channels=3, channels=(8, 16, 32, 64, 128),
        bottleneck_type='cat', num_convs=4, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    bisenet_v2=dict(type='BiSeNetV2'), cgnet=dict(type='CGNet', num_blocks=(1, 2)),
    erfnet=dict(type='ERFNet'), fast_scnn=dict(type='FastSCNN'),
    mscan=dict(type='MSCAN', embed_dims=[8, 16, 32, 64], depths=[1, 1, 1, 1],
               norm_cfg=dict(type='BN')),
    ddrnet=dict(type='DDRNet', channels=8, ppm_channels=8),
    pidnet=dict(type='PIDNet', channels=8, ppm_channels=8, num_stem_blocks=1,
                num_branch_blocks=1), wnet=dict(type='mmsparse.WNet', num_classes=3))


@pytest.mark.parametrize('name', BACKBONES)
@torch.no_grad()
def test_backbones_compute_the_same(name):
    """Whatever the order of their layers."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = shake(MODELS.build(BACKBONES[name])).double()
    x = torch.randn(1, 3, 128, 160, dtype=torch.float64)

    def maps():
        found = model(x)
        return [found] if isinstance(found, torch.Tensor) else list(found)
    before = maps()
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    fuse_for_inference(model)
    for after, expected in zip(maps(), before, strict=True):
        assert float((after - expected).norm() / expected.norm()) < 1e-9
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) < norms


@torch.no_grad()
def test_a_convolution_with_two_norms_is_folded_with_each():
    """As detectors share convolutions, but not norms, between levels."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3)
    model = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(8)) for _ in range(2))
    shake(model)
    x = torch.randn(2, 3, 17, 19)
    before = [level(x) for level in model]
    fuse_for_inference(model)
    for level, expected in zip(model, before, strict=True):
        torch.testing.assert_close(level(x), expected, atol=1e-5, rtol=1e-5)
        assert isinstance(level[1], nn.Identity)


@pytest.mark.parametrize('name', ['swiftnet-ss_r18', 'swiftnet-pyr2_r18', 'swiftnet-pyr2-cvpr_r18',
                                  'swiftnet-pyr2_mnv2'])
@torch.no_grad()
def test_swiftnet(root, name):
    """A norm before the classifier; norms per level, or shared, on shared convolutions."""
    cfg = Config.fromfile(root / f'configs/swiftnet/{name}_1xb14-53k_cityscapes-768x768.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = shake(MODELS.build(cfg.model)).double()
    x = torch.randn(1, 3, 96, 130, dtype=torch.float64)
    before = model(x, mode='tensor')
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    after = fuse_for_inference(model)(x, mode='tensor')
    assert float((after - before).norm() / before.norm()) < 1e-12
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) < norms


def test_crm():
    """Two norms after one convolution: the first is folded."""
    from tests.models.crm.builders import build, picture
    model, (image, mask) = build(), picture((96, 130))
    before = model.refine(image, mask).mask
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    after = fuse_for_inference(model).refine(image, mask).mask
    assert before.std() > 0.02
    torch.testing.assert_close(after, before, atol=1e-3, rtol=0)
    assert norms > sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 3


def build_plain(**kwargs):
    torch.manual_seed(0)
    return shake(MODELS.build(ConfigDict(segmentor_cfg(**kwargs))))


def relative(result, expected):
    return float((result.float() - expected).norm() / expected.norm())


SLIDE = dict(mode='slide', crop_size=(64, 64), stride=(40, 40))


@pytest.mark.parametrize('build', [build_refine, *(pytest.param(
    build, marks=pytest.mark.slow) for build in (
        build_plain, lambda: build_plain(test_cfg=SLIDE),
        lambda: build_refine(upsample='bilinear', low_res_size=(50, 47))))])
@torch.no_grad()
def test_openvino_gives_the_same_logits(build):
    """For batches and images of several sizes, by all that a model computes them with."""
    fused = fuse_for_inference(build(), backend='openvino')
    for batch_size, size in ((1, (96, 101)), (2, (96, 101)), (1, (120, 97))):
        expected, results = (model(**batch(fused, batch_size, size=size), mode='predict')
                             for model in (build(), fused))
        for before, after in zip(expected, results, strict=True):
            assert relative(after.seg_logits.data, before.seg_logits.data) < 1e-5


@pytest.mark.parametrize('backend', ['torch', 'openvino'])
@pytest.mark.parametrize('build', [build_plain, build_refine])
@pytest.mark.usefixtures('computes_bfloat16')
@torch.no_grad()
def test_bfloat16(build, backend):
    """Sparse and dense layers; selection and ensembling stay exact."""
    fused = fuse_for_inference(build(), backend=backend, dtype='bfloat16')
    expected, results = (model(**batch(fused), mode='predict') for model in (build(), fused))
    for before, after in zip(expected, results, strict=True):
        difference = relative(after.seg_logits.data, before.seg_logits.data)
        assert difference < 0.1  # some pixels are selected by one and not by the other
        # float32 differs by 1e-6 at most; a CPU without instructions for bfloat16 lets OpenVINO
        # compute in float32, and then only the sparse layers are in bfloat16
        least = dict(torch=1e-4, openvino=1e-5)[backend]
        assert difference > least or (backend == 'openvino' and build is build_plain)
    assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize('channels', [1, 5])
@pytest.mark.parametrize('meta', [
    None, {}, dict(img_padding_size=[2, 5, 3, 16], ori_shape=(77, 94)), dict(ori_shape=(300, 77)),
    dict(padding_size=[0, 5, 0, 6], flip=True, flip_direction='horizontal'),
    dict(flip=True, flip_direction='vertical', ori_shape=(50, 60))])
@torch.no_grad()
def test_classes_are_those_of_mmseg(channels, meta):
    """The first of equal scores too."""
    model = build_plain(num_classes=channels)
    model.decode_head.threshold = 0.4 if channels == 1 else None
    logits = torch.randint(-3, 4, (2, channels, 96, 101)).float()

    def samples():
        return None if meta is None else [SegDataSample(
            metainfo=dict(ori_shape=(96, 101)) | meta) for _ in logits]

    expected = model.postprocess_result(logits, samples())
    for sample, other in zip(
            fuse_for_inference(model).postprocess_result(logits, samples()), expected, strict=True):
        assert torch.equal(sample.seg_logits.data, other.seg_logits.data)
        assert torch.equal(sample.pred_sem_seg.data, other.pred_sem_seg.data)
        assert sample.pred_sem_seg.data.dtype == other.pred_sem_seg.data.dtype


def test_a_postprocess_of_its_own_stays():
    class Depth(EncoderDecoder):
        def postprocess_result(self, seg_logits, data_samples=None):
            return 'depth'

    model = Depth(**{key: value for key, value in segmentor_cfg().items() if key != 'type'})
    assert fuse_for_inference(model).postprocess_result(None) == 'depth'


def test_a_segmentor_without_openvino(monkeypatch):
    """Says so, once, and computes by torch."""
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.warns(UserWarning, match=r'mmsparse\[openvino\]') as caught:
        fused = fuse_for_inference(build_refine(), backend='openvino')
    assert sum('OpenVINO' in str(warning.message) for warning in caught) == 1
    expected, results = (model(**batch(fused), mode='predict') for model in (build_refine(), fused))
    for before, after in zip(expected, results, strict=True):
        assert relative(after.seg_logits.data, before.seg_logits.data) < 1e-5


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(ValueError, match="backend must be one of .*, got 'tensorrt'"):
        fuse_for_inference(build_plain(), backend='tensorrt')
    with pytest.raises(ValueError, match="dtype must be one of .*, got 'int8'"):
        fuse_for_inference(build_plain(), dtype='int8')
    with pytest.raises(ValueError, match="backend 'openvino' .* got Sequential"):
        fuse_for_inference(nn.Sequential(nn.Conv2d(3, 3, 1)), backend='openvino')
    for other in (dict(dtype='bfloat16'), dict(backend='openvino')):
        model = build_plain().to('meta')
        with pytest.raises(ValueError, match='is for the CPU, the model is on meta'):
            fuse_for_inference(model, **other)
        assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), 'left as it was'
