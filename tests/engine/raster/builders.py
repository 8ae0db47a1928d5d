"""Models for pictures larger than memory."""
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from mmsparse.registry import MODELS
from tests.models.tiny import segmentor_cfg

CLASSES = tuple('abcde')


@MMSEG_MODELS.register_module(force=True)
class NearBackbone(BaseModule):
    """Stride 4; sees a dozen pixels far."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, x):
        return [self.layers(x)]


def near_cfg(**kwargs):
    cfg = segmentor_cfg()
    cfg['decode_head'].update(in_channels=8, channels=8, in_index=0)
    cfg.pop('auxiliary_head')
    return cfg | dict(backbone=dict(type='mmseg.NearBackbone')) | kwargs


def refining_cfg(**kwargs):
    return dict(
        type='mmsparse.SparseRefineSegmentor', segmentor=near_cfg(),
        selector=dict(type='mmsparse.EntropySelector', alpha=1.0),
        decode_head=dict(
            type='mmsparse.SparseRefineHead',
            extractor=dict(type='mmsparse.SparseUNet', channels=(6, 8, 10)))) | kwargs


def build(cfg, sharpness=200):
    """With logits spread out, so that classes alternate and a threshold splits the pixels."""
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(cfg))  # mmseg reads test_cfg by attribute
    for name, layer in model.named_modules():
        if name.endswith(('conv_seg', 'head.classifier')):
            layer.weight.data.mul_(sharpness)
            layer.bias.data.zero_()
    model.dataset_meta = dict(classes=CLASSES, palette=[(n, 9, 255 - n) for n in range(5)])
    return model.eval()
