"""Segmentors whose head has one sigmoid channel, refined as two classes."""
import pytest
import torch

from mmsparse.registry import MODELS
from tests.models.tiny import batch, low_logits, refine_cfg


def one_channel(**kwargs):
    cfg = refine_cfg(num_classes=2, **kwargs)
    cfg['segmentor']['decode_head'] |= dict(num_classes=2, out_channels=1, threshold=0.3)
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    model.segmentor.decode_head.conv_seg.weight.data.mul_(400)
    return model


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
@torch.no_grad()
def test_one_sigmoid_channel_is_two_classes(upsample):
    model = one_channel(alpha=0.5, upsample=upsample)
    data = batch(model, num_classes=2)
    metas = [s.metainfo for s in data['data_samples']]
    logits = model.inference(data['inputs'], metas)
    z = low_logits(model, data['inputs'], upsample)
    assert logits.shape == z.shape == (2, 1, 96, 101)
    probability = z[:, 0].sigmoid().double()
    expected = -(probability * probability.log() + (1 - probability) * (1 - probability).log())
    clear = (expected - 0.5).abs() > 1e-3  # off only where float rounding decides
    certain = (logits.double().sigmoid() - 0.3).abs() > 1e-4  # the same for the head's threshold
    samples = model.predict(**data)
    for i, sample in enumerate(samples):
        assert torch.equal(sample.selected.data[0][clear[i]], (expected > 0.5)[i][clear[i]])
        kept = ~sample.selected.data[0]
        torch.testing.assert_close(logits[i, 0][kept], z[i, 0][kept])
        # the head's own threshold decides, in mmseg's post-processing as here
        classes = (logits[i].sigmoid() > 0.3).long()
        assert torch.equal(sample.pred_sem_seg.data[certain[i]], classes[certain[i]])
        agree = (sample.low_res_sem_seg.data[0] == (probability[i] > 0.3)).float().mean()
        assert agree > 0.999
    for size in ((96, 101), (150, 99)):
        model.test_cfg['seg_logits'] = True
        whole = model.predict(**batch(model, num_classes=2, ori_shape=size))
        model.test_cfg['seg_logits'] = False
        for sample, expected in zip(model.predict(**batch(model, num_classes=2, ori_shape=size)),
                                    whole, strict=True):
            clear_cut = (expected.seg_logits.data - 0.3).abs() > 1e-4  # probabilities, as mmseg's
            assert torch.equal(sample.pred_sem_seg.data.view(1, *size)[clear_cut],
                               expected.pred_sem_seg.data[clear_cut].long())
    with torch.enable_grad():
        model.train().loss(**data)['decode.loss_ensemble_ce'].backward()
