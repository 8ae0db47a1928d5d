"""Rewriting a trained model for faster inference, with the same results."""
from __future__ import annotations

import copy
import functools
import warnings

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmsparse.models.sparserefine import SparseRefineSegmentor, SparseUNet
from mmsparse.models.swiftnet.encoders import SwiftNetPyramidBackbone
from mmsparse.precision import takes_bfloat16
from mmsparse.preprocessing import batch_metas, placements_of, plain_samples
from mmsparse.sparse.upsampled import classes_of

from .layout import channels_last
from .openvino import OpenVINOEncodeDecode

BACKENDS = ('torch', 'openvino')
DTYPES = ('float32', 'bfloat16')


def fuse_for_inference(model: nn.Module, *, backend: str = 'torch', dtype: str = 'float32'
                       ) -> nn.Module:
    """Fold batch norms into the convolutions before them and lay images out pixel by pixel.

    For any mmseg or mmdet model, the low-resolution segmentor inside a refining model included. A
    batch norm is folded if it comes next after its convolution among the children of one module;
    with an activation between them, as in W-Net, it stays. Of an mmseg segmentor
    :func:`postprocess` takes mmseg's place.

    Args:
        model: changed in place; it can no longer be trained, and its state dict no longer fits the
            config.
        backend: what computes the dense networks of mmseg in it, the low-resolution segmentor of a
            refining model for one: ``'torch'``, or ``'openvino'`` on the CPU, which compiles them
            at the first image of each size. Where OpenVINO is missing a warning says so, and torch
            computes.
        dtype: ``'float32'``, or ``'bfloat16'`` for all that need not be exact: convolutions and
            matrix products, sparse ones included. For CPUs with instructions for it (AMX,
            avx512_bf16); others compute in float32, with a warning.

    Returns:
        The same model, in evaluation mode.

    Raises:
        ValueError: backend or dtype are unknown, or not for the device that the model is on.
    """
    for name, value, allowed in (('backend', backend, BACKENDS), ('dtype', dtype, DTYPES)):
        if value not in allowed:
            raise ValueError(f'{name} must be one of {allowed}, got {value!r}')
    device = next(model.parameters()).device.type
    if (backend, dtype) != (BACKENDS[0], DTYPES[0]) and device != 'cpu':
        raise ValueError(f'backend {backend!r} with dtype {dtype!r} is for the CPU, the model is '
                         f'on {device}; on a GPU use torch with autocast')
    if (backend, dtype) != (BACKENDS[0], DTYPES[0]) and not isinstance(model, BaseSegmentor):
        raise ValueError(f'backend {backend!r} with dtype {dtype!r} is for segmentors of mmseg, '
                         f'got {type(model).__name__}')
    if dtype == 'bfloat16' and not takes_bfloat16(device):
        dtype = 'float32'
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
    model.eval()  # backbones of mmseg return nothing from it
    fold_norms(model)
    channels_last(model)
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, SparseUNet):
            module.fuse(torch.bfloat16 if dtype == 'bfloat16' else None)
    if isinstance(model, BaseSegmentor) and (
            type(model).postprocess_result is BaseSegmentor.postprocess_result):
        model.postprocess_result = functools.partial(postprocess, model)
    if backend == 'openvino':
        use_openvino(model, dtype)
    if dtype == 'bfloat16':
        names = ['forward', 'encode_decode']  # the first may call the others: a context each
        if isinstance(model, SparseRefineSegmentor):
            names.append('low_scores')
        for name in names:
            in_bfloat16 = torch.autocast(device, torch.bfloat16)(getattr(model, name))
            setattr(model, name, in_bfloat16)
    return model


def postprocess(model: BaseSegmentor, seg_logits: Tensor,
                data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
    """mmseg's ``postprocess_result``, with classes by :func:`.classes_of`, faster than arg-max.

    Args:
        model: whose ``align_corners`` holds where scores are resized.
        seg_logits: ``[B, K, H, W]``.
        data_samples: carry padding, flip and the original size; ``None`` means none of these.

    Returns:
        The samples, with ``seg_logits`` ``[K, *ori_shape]`` and ``pred_sem_seg``, int64 ``[1,
        *ori_shape]``.

    Raises:
        ValueError: the metainfo lacks what it takes to put a result back into its image.
    """
    if seg_logits.shape[1] == 1:  # a sigmoid, no arg-max
        return BaseSegmentor.postprocess_result(model, seg_logits, data_samples)
    data_samples = data_samples or plain_samples(seg_logits)
    placements = placements_of(batch_metas(seg_logits, data_samples), seg_logits)
    for sample, placement, image in zip(data_samples, placements, seg_logits, strict=True):
        scores = F.interpolate(
            placement.upright(image)[None], size=placement.ori_shape, mode='bilinear',
            align_corners=model.align_corners)
        sample.set_data(dict(seg_logits=PixelData(data=scores[0]),
                             pred_sem_seg=PixelData(data=classes_of(scores))))
    return data_samples


def fold_norms(model: nn.Module) -> None:
    """Fold every batch norm into the convolution that stands right before it.

    mmcv's function of this purpose folds across whatever stands between the two.
    """
    for module in list(model.modules()):
        before: tuple[str, nn.Module | None] = '', None
        for name, child in list(module.named_children()):
            conv = before[1]
            if (isinstance(child, _BatchNorm) and isinstance(conv, nn.Conv2d)
                    and conv.out_channels == child.num_features):
                module._modules[before[0]] = fuse_conv_bn_eval(conv, child)
                module._modules[name] = nn.Identity()
            before = name, child


def use_openvino(model: nn.Module, dtype: str) -> None:
    """Let OpenVINO compute the networks of mmseg in a model; warn where it is missing."""
    for segmentor in (m for m in model.modules() if isinstance(m, EncoderDecoder)):
        try:
            segmentor.encode_decode = OpenVINOEncodeDecode(segmentor, dtype)
        except ModuleNotFoundError:
            warnings.warn('OpenVINO is not installed, torch computes instead: '
                          "pip install 'mmsparse[openvino]'", stacklevel=3)
            return
