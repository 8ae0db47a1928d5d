"""Rewriting a trained model for faster inference, with the same results."""
from __future__ import annotations

import copy

from mmcv.cnn import ConvModule, fuse_conv_bn
from torch import channels_last, nn

from mmsparse.models.swiftnet.encoders import SwiftNetPyramidBackbone


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them and lay images out pixel by pixel.

    For any mmseg or mmdet model, the low-resolution segmentor inside a refining model included. The
    folding is mmcv's: a batch norm that follows a convolution among the children of one module is
    taken to be applied to it. Sparse layers fold their norms at every call and stay as they are.

    Args:
        model: changed in place; it can no longer be trained, and its state dict no longer fits the
            config.

    Returns:
        The same model, in evaluation mode.
    """
    for module in list(model.modules()):
        if isinstance(module, SwiftNetPyramidBackbone):
            module.unshare()
    convolutions: set[int] = set()
    for module in model.modules():
        # A convolution with several norms after it (a detector's levels) takes up one of them only.
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                if id(child) in convolutions:
                    module._modules[name] = copy.deepcopy(child)
                convolutions.add(id(child))
        # mmcv reads the order of computation from the order of children: norms that come first
        # have to stand first.
        if isinstance(module, ConvModule) and module.with_norm and (
                module.order.index('norm') < module.order.index('conv')):
            module._modules['conv'] = module._modules.pop('conv')
    fuse_conv_bn(model.eval())
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=channels_last)
    return model.requires_grad_(False)
