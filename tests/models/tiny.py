"""A stock mmseg segmentor small enough for tests, and SparseRefine on it."""
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

from mmsparse.hosts import last_head
from mmsparse.registry import MODELS

PREPROCESSOR = dict(
    type='mmseg.SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(96, 101))


def segmentor_cfg(num_classes=5, **kwargs):
    # every type with its scope: tests run under whatever default scope the last one left
    norm, loss = dict(type='BN'), dict(type='mmseg.CrossEntropyLoss')
    return dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=PREPROCESSOR,
        backbone=dict(type='mmseg.ResNetV1c', depth=18, base_channels=8, norm_cfg=norm),
        decode_head=dict(
            type='mmseg.FCNHead', in_channels=64, channels=16, num_convs=1, norm_cfg=norm,
            num_classes=num_classes, concat_input=False, dropout_ratio=0, loss_decode=loss),
        auxiliary_head=dict(
            type='mmseg.FCNHead', in_channels=32, channels=8, in_index=2, num_convs=1,
            norm_cfg=norm, num_classes=num_classes, concat_input=False, loss_decode=loss),
        train_cfg=dict(), test_cfg=dict(mode='whole')) | kwargs


def refine_cfg(num_classes=5, alpha=1.1, **kwargs):
    return dict(
        type='mmsparse.SparseRefineSegmentor',
        segmentor=segmentor_cfg(num_classes),
        selector=dict(type='mmsparse.EntropySelector', alpha=alpha),
        decode_head=dict(
            type='mmsparse.SparseRefineHead',
            extractor=dict(type='mmsparse.SparseUNet', channels=(8, 12, 16)))) | kwargs


def refined_cfg(num_classes=5, **kwargs):
    return dict(
        type='mmsparse.RefinedSegmentor', segmentor=segmentor_cfg(num_classes),
        refiner=dict(
            type='mmsparse.CRMRefiner',
            neck=dict(type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
            backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
            head=dict(type='mmsparse.ImplicitPointHead'),
            data_preprocessor=dict(
                type='mmseg.SegDataPreProcessor', mean=[0] * 3, std=[1] * 3))) | kwargs


def build_refine(seed=0, sharpness=400.0, **kwargs):
    """The model with logits spread out, so that a threshold splits the pixels."""
    torch.manual_seed(seed)
    model = MODELS.build(refine_cfg(**kwargs))
    model.segmentor.decode_head.conv_seg.weight.data.mul_(sharpness)
    return model.eval()


def batch(model, batch_size=2, size=(96, 101), num_classes=5, seed=0, training=False, **meta):
    """Preprocessed random images and labels: ``dict(inputs=..., data_samples=...)``."""
    g = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for _ in range(batch_size):
        coarse = torch.randint(0, 256, (3, 12, 12), generator=g).float()
        image = F.interpolate(coarse[None], size=size, mode='bilinear')[0]
        images.append(image.byte())
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, img_path='') | meta)
        labels = torch.randint(num_classes, (1, *size), generator=g)
        labels[:, :3] = 255
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), training)


class Answers(torch.nn.Module):
    """Stands for a model: class 0 everywhere."""

    def __init__(self, ignore_index):
        super().__init__()
        self.decode_head = torch.nn.Module()
        self.decode_head.ignore_index = ignore_index

    def test_step(self, batch):
        result, = batch['data_samples']
        result.pred_sem_seg = PixelData(
            data=torch.zeros(1, *result.ori_shape, dtype=torch.int64))
        return [result]


@torch.no_grad()
def vary_classes(model, image, scale=2000):
    """Scores of its stock segmentors spread out and centered: no class wins all of the image."""
    inputs = model.data_preprocessor(
        dict(inputs=[image], data_samples=[SegDataSample()]), False)['inputs']
    for part in (m for m in model.modules() if isinstance(m, EncoderDecoder)):
        layer = last_head(part).conv_seg
        layer.weight.data.mul_(scale)
        scores = []
        handle = layer.register_forward_hook(lambda *args, scores=scores: scores.append(args[-1]))
        part.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])])
        handle.remove()
        layer.bias.data -= scores[0].mean((0, 2, 3))
    return model


def low_logits(model, inputs, mode):
    """The frozen segmentor by mmseg's own means, resized to full size."""
    size = tuple(round(n / 2) for n in inputs.shape[2:])
    small = F.interpolate(inputs, size=size, mode='bilinear', align_corners=False)
    metas = [dict(ori_shape=size, img_shape=size, pad_shape=size)] * len(inputs)
    logits = model.segmentor.encode_decode(small, metas)
    kwargs = dict(align_corners=model.segmentor.align_corners) if mode == 'bilinear' else {}
    mode = 'nearest-exact' if mode == 'nearest' else mode  # by a pixel's center
    return F.interpolate(logits, size=inputs.shape[2:], mode=mode, **kwargs)
