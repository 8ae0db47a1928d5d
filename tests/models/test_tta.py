"""Test-time augmentation of every kind of head: as predict where views agree, else their mean."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.models import SegTTAModel
from mmsparse.models.swiftnet import SegEnsemble
from mmsparse.registry import MODELS
from tests.examples import examples
from tests.models.tiny import refine_cfg, segmentor_cfg, vary_classes

ONE_CHANNEL = dict(num_classes=2, out_channels=1, threshold=0.3)


class Mask2FormerHead(FCNHead):
    """Scores as Mask2Former's head gives them: in [0, 1], of one pixel to any sum."""

    def predict(self, *args):
        return super().predict(*args).sigmoid()


@MMSEG_MODELS.register_module()
class TinyMaskHead(Mask2FormerHead):
    """A user's, under another name."""


def with_head(cfg, **head):
    cfg['decode_head'] |= head
    return cfg


def cascade():
    cfg = segmentor_cfg()
    cfg['decode_head'] = [cfg['decode_head'], dict(
        type='mmseg.OCRHead', in_channels=64, channels=16, ocr_channels=8, num_classes=5,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='mmseg.CrossEntropyLoss'))]
    return cfg | dict(type='mmseg.CascadeEncoderDecoder', num_stages=2, auxiliary_head=None)


def refine_one_channel():
    cfg = refine_cfg(2, alpha=0.6)
    with_head(cfg['segmentor'], **ONE_CHANNEL)
    return cfg


CASES = dict(
    stock=segmentor_cfg,
    one_channel=lambda: with_head(segmentor_cfg(), **ONE_CHANNEL),
    cascade=cascade,
    mask2former=lambda: with_head(segmentor_cfg(), type='mmseg.TinyMaskHead'),
    slide=lambda: segmentor_cfg(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32))),
    refine=refine_cfg,
    refine_one_channel=refine_one_channel,
    ensemble=lambda: dict(type='mmsparse.SegEnsemble', segmentors=[segmentor_cfg()] * 2))


@pytest.fixture(scope='module', params=CASES)
def model(request):
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(CASES[request.param]())).eval()
    return vary_classes(model, view()[0][0])


def view(flip=None, size=(96, 101)):
    """One view of one picture, as the collated pipeline hands it on."""
    g = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, 8, 8), generator=g).repeat_interleave(13, 1).repeat_interleave(
        13, 2)[:, :size[0], :size[1]].byte()
    sample = SegDataSample(metainfo=dict(
        ori_shape=size, img_shape=size, img_path='a.png', flip=bool(flip), flip_direction=flip))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
    axis = dict(horizontal=2, vertical=1).get(flip)
    return [image if axis is None else image.flip(axis)], [sample]


def views(*flips):
    inputs, samples = zip(*(view(flip) for flip in flips), strict=True)
    return dict(inputs=list(inputs), data_samples=list(samples))


def one(flip=None):
    inputs, samples = view(flip)
    return dict(inputs=inputs, data_samples=samples)


@torch.no_grad()
def test_three_times_the_same_view_is_the_prediction(model):
    plain, = model.test_step(one())
    merged, = SegTTAModel(module=model).test_step(views(None, None, None))
    expected = plain.pred_sem_seg.data
    assert len(expected.unique()) > 1
    # off only where the mean of three equal numbers is rounded across the threshold
    assert (merged.pred_sem_seg.data != expected).float().mean() < 1e-3
    assert merged.pred_sem_seg.shape == (96, 101)
    assert merged.img_path == 'a.png' and merged.gt_sem_seg.shape == (96, 101)
    # what a view alone predicted would speak for the mean
    assert set(merged.keys()) == {'pred_sem_seg', 'gt_sem_seg'}


@torch.no_grad()
def test_flipped_views_are_averaged_as_probabilities(model):
    """Against the segmentor's own scores, read before mmseg stores them."""
    flips = (None, 'horizontal', 'vertical')
    total = 0
    for flip in flips:
        data = model.data_preprocessor(one(flip), False)
        scores_of = model.encode_decode if isinstance(model, SegEnsemble) else model.inference
        scores = scores_of(data['inputs'], [data['data_samples'][0].metainfo])[0].double()
        p = (scores.sigmoid() if len(scores) == 1 else
             scores if isinstance(model.decode_head, Mask2FormerHead) else scores.softmax(0))
        total = total + (p.flip(dict(horizontal=2, vertical=1)[flip]) if flip else p) / 3
    merged, = SegTTAModel(module=model).test_step(views(*flips))
    if len(total) == 1:
        expected, margin = total > 0.3, (total[0] - 0.3).abs()
    else:
        best = total.topk(2, 0).values
        expected, margin = total.argmax(0, keepdim=True), best[0] - best[1]
    clear = margin > 1e-5
    assert clear.float().mean() > 0.95 and len(expected[0][clear].unique()) > 1
    assert torch.equal(merged.pred_sem_seg.data[0][clear], expected[0].long()[clear])


class Scores(nn.Module):
    """A segmentor of which only the head's threshold is asked."""

    def __init__(self, threshold):
        super().__init__()
        self.decode_head = nn.Identity()
        self.decode_head.threshold = threshold

    def test_step(self, data):
        raise NotImplementedError


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2 ** 32), st.floats(0.05, 0.95))
@examples(100)
def test_merging_against_a_loop(classes, count, seed, threshold):
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, classes, 4, 5, generator=g) * 3
    maps = maps.sigmoid() if classes == 1 else maps  # as mmseg stores them
    samples = [SegDataSample(seg_logits=PixelData(data=m)) for m in maps]
    merged, = SegTTAModel(module=Scores(threshold)).merge_preds([samples])
    for y in range(4):
        for x in range(5):
            mean = [0.0] * classes
            for scores in maps[:, :, y, x].double().tolist():
                odds = [math.exp(z) for z in scores]
                shares = scores if classes == 1 else [o / sum(odds) for o in odds]
                mean = [m + share / count for m, share in zip(mean, shares, strict=True)]
            best = mean.index(max(mean)) if classes > 1 else int(mean[0] > threshold)
            rest = sorted(mean)[-2] if classes > 1 else threshold
            if abs(max(mean) - rest) > 1e-5:
                assert merged.pred_sem_seg.data[0, y, x] == best


def test_what_has_no_scores_is_refused_by_name():
    samples = [SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 4, 5)))]
    with pytest.raises(ValueError, match='Scores predicts classes without scores'):
        SegTTAModel(module=Scores(None)).merge_preds([samples])
