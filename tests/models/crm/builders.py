"""CRM's networks small enough for tests, pictures, and refiners that stand for one."""
import math

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.models.crm.refiner import Refinement
from mmsparse.registry import MODELS

THIN = dict(base_channels=4, stem_channels=4)


def shake(module, seed=0):
    """Weights and statistics for which every layer matters."""
    g = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.uniform_(0.5, 1.5, generator=g)
            m.bias.data.normal_(0, 0.3, generator=g)
            m.running_mean.normal_(0, 0.3, generator=g)
            m.running_var.uniform_(0.5, 2, generator=g)
        elif isinstance(m, nn.Linear):
            m.weight.data.normal_(0, 1.6 / math.sqrt(m.in_features), generator=g)
            m.bias.data.normal_(0, 0.3, generator=g)
        elif isinstance(m, nn.Conv2d):
            fan = m.weight[0].numel()
            m.weight.data.normal_(0, math.sqrt(2 / fan), generator=g)
    return module


def build(thin=True, seed=0, neck=None, backbone=None, **test_cfg):
    init_default_scope('mmseg')
    width = 4 if thin else 64
    model = MODELS.build(dict(
        type='mmsparse.CRMRefiner',
        backbone=backbone or dict(type='mmsparse.CRMResNet', **(THIN if thin else {})),
        neck={'type': 'mmsparse.CRMFusionNeck', 'in_channels': (width, 4 * width, 16 * width),
              **(neck or {})},
        head=dict(type='mmsparse.ImplicitPointHead'),
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True, size_divisor=1),
        test_cfg=dict(dict(min_area=0, min_long_side=0), **test_cfg)))
    shake(model, seed)
    model.eval()
    return model


def picture(size, count=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, *size), generator=g, dtype=torch.uint8)
    mask = torch.zeros(count, *size)
    for i in range(count):
        mask[i, size[0] // 5:size[0] // (2 + i), size[1] // 4:3 * size[1] // 4] = 1
    return image, mask


class Fake(torch.nn.Module):
    """Stands for a refiner: some function of mask and image; notes the sizes it saw."""

    def __init__(self, function=lambda image, mask: mask):
        super().__init__()
        self.function, self.seen = function, []

    def refine(self, images, masks):
        assert images.dtype == torch.uint8 and images.shape[2:] == masks.shape[1:]
        self.seen.append(tuple(masks.shape))
        return Refinement(self.function(images, masks), [], torch.zeros(len(masks)))


def with_scores(model, scores):
    """Let the segmentor give these logits."""
    model.segmentor.encode_decode = lambda inputs, metas: scores
    return model


def sample(size, image=None, **meta):
    image = np.zeros((*size, 3), np.uint8) if image is None else image
    return SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, ori_img=image, **meta))


def blobs(size=(120, 160), classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    scores = torch.nn.functional.interpolate(
        torch.randn(1, classes, 4, 5, generator=g), size, mode='bicubic')
    return 4 * scores
