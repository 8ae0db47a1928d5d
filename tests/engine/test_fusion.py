"""What folding must leave alone; on the five baselines: tests/models/test_cityscapes_configs.py."""
import torch
from mmcv.cnn import ConvModule
from torch import nn

from mmsparse.engine.fusion import fuse_for_inference


@torch.no_grad()
def test_a_norm_before_its_convolution_is_not_folded():
    torch.manual_seed(0)
    model = nn.Sequential(
        ConvModule(3, 8, 3, norm_cfg=dict(type='BN')),
        ConvModule(8, 8, 3, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv')))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
            module.weight.normal_(), module.bias.normal_()
    x = torch.randn(2, 3, 17, 19)
    before = model.eval()(x)
    assert fuse_for_inference(model) is model
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    assert isinstance(model[0].norm, nn.Identity) and isinstance(model[1].norm, nn.BatchNorm2d)
    assert not any(p.requires_grad for p in model.parameters())
