"""Channels last changes no result, mmcv's own kernels included, which read memory in one order."""
import pytest
import torch
from mmcv import ops
from mmdet.registry import MODELS as MMDET
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS as MMSEG
from torch import nn

from mmsparse.engine.fusion import fuse_for_inference
from mmsparse.engine.layout import channels_last

# Rounding decides between cells or points that are nearly as uncertain; so all are taken here.
ALL_TAKEN = {'pointrend-plus': dict(subdivision_num_points=224**2), 'effseg': dict(budget=None)}
ROIS = torch.tensor([[0., 1, 2, 9, 12], [1, 4, 0, 14, 9]])


class Between(nn.Module):
    """An operation of mmcv between two convolutions."""

    def __init__(self, operation, *rest):
        super().__init__()
        self.first, self.operation, self.last = nn.Conv2d(3, 8, 3), operation, nn.Conv2d(8, 5, 1)
        self.rest = rest
        for conv in operation.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.1)  # offsets that begin at 0 hide much

    def forward(self, x):
        return self.last(self.operation(self.first(x), *self.rest))


@pytest.mark.parametrize('build', [
    lambda: Between(ops.RoIAlign(7), ROIS),
    lambda: Between(ops.SimpleRoIAlign(7, 1.0), ROIS),
    lambda: Between(ops.DeformConv2dPack(8, 8, 3, padding=1)),
    lambda: Between(ops.ModulatedDeformConv2dPack(8, 8, 3, padding=1)),
    lambda: Between(ops.CornerPool('bottom')),
    lambda: Between(nn.Identity())],
    ids=['RoIAlign', 'SimpleRoIAlign', 'DCN', 'DCNv2', 'CornerPool', 'none'])
def test_kernels_between_convolutions(build):
    """Results and gradients."""
    model, x = build(), torch.randn(2, 3, 16, 18, requires_grad=True)
    results = []
    for _ in range(2):
        y = model(x)
        loss = (y * torch.linspace(1, 2, y.numel()).view(y.shape)).sum()
        results.append((y, *torch.autograd.grad(loss, [x, *model.parameters()])))
        channels_last(model)
    assert model.first(x).is_contiguous(memory_format=torch.channels_last)
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_maps_in_lists_and_by_keyword():
    """As a module of mmdet gets the levels of a pyramid."""
    seen = []

    class Levels(ops.RoIPool):
        def forward(self, levels, *, other):
            seen.extend(x.is_contiguous() for x in (*levels, *other))

    model = Levels(7)
    channels_last(model)
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    model([x, x], other=(x,))
    assert seen == [True] * 3


@pytest.mark.parametrize('head', ['mask-rcnn-plus', 'pointrend-plus', 'refinemask-plus', 'effseg'])
def test_detector_fused(root, head):
    """Boxes, and masks on boxes."""
    path, = root.glob(f'projects/coco128/configs/{head}_mnv2_coco128-320.py')
    cfg = Config.fromfile(path).model
    cfg.backbone.init_cfg = None
    cfg.roi_head.mask_head.update(ALL_TAKEN.get(head, {}))
    init_default_scope('mmdet')
    model = MMDET.build(cfg).eval()
    image, rois = torch.randn(1, 3, 96, 128), ROIS.clone()
    rois[:, 0], rois[:, 1:] = 0, 8 * rois[:, 1:]
    results = []
    for _ in range(2):
        with torch.no_grad():
            x, roi_head = model.extract_feat(image), model.roi_head
            boxes = roi_head._bbox_forward(x, rois)
            results.append((
                *x, boxes['cls_score'], boxes['bbox_pred'],
                roi_head.mask_logits(x, rois, torch.zeros(2, dtype=torch.long))))
        fuse_for_inference(model)
    assert x[0].is_contiguous(memory_format=torch.channels_last)
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_segmentor_with_deformable_convolutions_fused():
    """mmseg's ResNets take them."""
    init_default_scope('mmseg')
    model = MMSEG.build(dict(
        type='EncoderDecoder', backbone=dict(
            type='ResNet', depth=50, base_channels=8, num_stages=2, strides=(1, 2),
            dilations=(1, 1), out_indices=(1,), dcn=dict(type='DCNv2', deform_groups=1),
            stage_with_dcn=(False, True)),
        decode_head=dict(type='FCNHead', in_channels=64, channels=16, num_convs=1, num_classes=3),
        test_cfg=dict(mode='whole'))).eval()
    for name, parameter in model.named_parameters():
        if 'conv_offset' in name:
            nn.init.normal_(parameter, std=0.1)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = model(image)
        torch.testing.assert_close(fuse_for_inference(model)(image), before, atol=1e-4, rtol=1e-3)
