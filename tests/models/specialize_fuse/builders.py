"""Small heads of Specialize and Fuse, maps, labels, and the targets by loops."""
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.models.specialize_fuse.cells import (
    grid_size,
)
from mmsparse.registry import MODELS


def label_map(size, classes=4, block=9, void=0.2, seed=0, batch=2):
    """Blobs of classes, some thin lines and specks, some ignored pixels and one ignored corner."""
    g = torch.Generator().manual_seed(seed)
    h, w = size
    coarse = torch.randint(classes, (batch, 1, -(-h // block), -(-w // block)), generator=g)
    labels = F.interpolate(coarse.float(), scale_factor=block)[:, 0, :h, :w].long().clone()
    specks = torch.rand(batch, h, w, generator=g)
    labels[specks < 0.0002] = classes - 1
    labels[specks > 1 - 0.001 * void] = 255
    if void:
        labels[:, :h // 3, :w // 4] = 255
    return labels


def loop_targets(labels, stride, ignore=255):
    """The truth table, cell by cell: classes and unity as arrays."""
    b, height, width = labels.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    classes = np.full((b, rows, columns), ignore)
    unity = np.full((b, rows, columns), 255)
    for n, i, j in itertools.product(range(b), range(rows), range(columns)):
        cell = labels[n, i * stride:(i + 1) * stride, j * stride:(j + 1) * stride]
        values = set(cell.flatten().tolist())
        clean = ignore not in values and cell.numel() == stride * stride
        real = values - {ignore}
        if len(real) >= 2:
            unity[n, i, j] = 0
        elif len(real) == 1 and clean:
            unity[n, i, j], classes[n, i, j] = 1, real.pop()
    return torch.from_numpy(classes), torch.from_numpy(unity)


def loop_relabel(labels, strides, mode, logits):
    """Cell by cell: done if any ancestor is settled."""
    table = [loop_targets(labels, s) for s in strides]
    classes, unity = [t[0].clone() for t in table], [t[1].clone() for t in table[:-1]]
    for level in range(1, len(strides)):
        for n, i, j in np.ndindex(*classes[level].shape):
            for k in range(level):
                ratio = strides[k] // strides[level]
                n_, i_, j_ = n, i // ratio, j // ratio
                settled = table[k][1][n_, i_, j_] == 1 and mode != 'naive' and (
                    mode == 'gt_unity' or torch.sigmoid(logits[k][n_, 0, i_, j_]) >= 0.5)
                if settled:
                    classes[level][n, i, j] = 255
                    if level < len(strides) - 1:
                        unity[level][n, i, j] = 255
    return classes, unity


BN = dict(type='BN')


def randomize(model, seed=0):
    """Norms that do something, an attention that is not zero, unity maps that differ."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value in (module.weight.data, module.running_var):
                value.copy_(0.5 + torch.rand(value.shape, generator=g))
            for value in (module.bias.data, module.running_mean):
                value.copy_(torch.randn(value.shape, generator=g) * 0.2)
        elif isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.data.copy_(
                torch.randn(module.weight.shape, generator=g) / math.sqrt(fan))
    return model


@torch.no_grad()
def balance(head, maps):
    for stride, logits in zip(head.strides, head(maps)[1], strict=False):
        last = (head.unity if head.unity else head.sem)[f's{stride}'].conv
        values = logits.flatten().sort().values
        at = round(0.6 * len(values))
        last.bias[-1] -= values[at - 1:at + 1].mean()  # no cell is at the threshold itself


def features(size=(96, 128), batch=2, seed=0, channels=(4, 6)):
    """Maps of stride 4 and 8, smooth enough for neighbors to agree."""
    g = torch.Generator().manual_seed(seed)
    maps = []
    for i, c in enumerate(channels):
        rough = torch.randn(batch, c, 5, 6, generator=g)
        fine = F.interpolate(rough, size=grid_size(size, 4 << i), mode='bilinear')
        maps.append(fine + 0.3 * torch.randn(fine.shape, generator=g))
    return maps


def samples(labels):
    found = []
    for label in labels:
        found.append(SegDataSample(metainfo=dict(img_shape=tuple(label.shape))))
        found[-1].gt_sem_seg = PixelData(data=label[None])
    return found


def metas(size, batch=2):
    return [dict(img_shape=size, ori_shape=size)] * batch


def segmentor(test_cfg=None, **kwargs):  # of mmseg, small
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size=(96, 96), mean=[120.] * 3,
                               std=[60.] * 3, test_cfg=dict(size_divisor=32)),
        backbone=dict(type='mmseg.ResNet', depth=18, base_channels=8, norm_cfg=BN),
        decode_head=dict(type='mmsparse.SpecializeFuseHead', in_channels=(8, 16, 32, 64),
                         channels=16, num_classes=5, **kwargs),
        test_cfg=test_cfg or dict(mode='whole')))
    randomize(model.decode_head)
    model.eval()
    with torch.no_grad():
        x = model.data_preprocessor(image_batch([(96, 128)]), False)['inputs']
        balance(model.decode_head, model.extract_feat(x))
    return model


def image_batch(sizes, **meta):
    g = torch.Generator().manual_seed(0)
    images, data = [], []
    for size in sizes:
        rough = torch.rand(1, 3, 7, 7, generator=g) * 255
        images.append(F.interpolate(rough, size=size, mode='bilinear')[0].byte())
        data.append(SegDataSample(metainfo=dict(
            ori_shape=size, img_shape=size, img_path='', **meta)))
    return dict(inputs=images, data_samples=data)
