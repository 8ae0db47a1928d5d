"""What a segmentor's scores are: by its head, by the config, or by a guess with a warning."""
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from mmsparse.hosts import gives_probabilities, warn_of_probabilities
from mmsparse.models import SegTTAModel
from mmsparse.registry import MODELS
from tests.models.tiny import refine_cfg, refined_cfg, segmentor_cfg

KNOWN = ('MaskFormerHead', 'Mask2FormerHead')
NAMES = (*KNOWN, 'TinyMask2FormerHead', 'UPerHead', 'Mask2FormerHeadV2')


class Mask2FormerHead(FCNHead):
    """Stands for mmseg's: scores in [0, 1], of one pixel to any sum."""

    def predict(self, *args):
        return super().predict(*args).sigmoid()


@MMSEG_MODELS.register_module()
class RenamedHead(Mask2FormerHead):
    """A user's own, under another name."""


@MMSEG_MODELS.register_module()
class SoftmaxHead(FCNHead):
    """A user's own, of which nobody can know."""

    def predict(self, *args):
        return super().predict(*args).softmax(1)


def with_head(head):
    return SimpleNamespace(decode_head=head)


def segmentor(kind):
    cfg = segmentor_cfg()
    cfg['decode_head']['type'] = f'mmseg.{kind}'
    return cfg


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.booleans())
def test_a_head_is_what_any_of_its_parents_is(names, cascade):
    cls = nn.Module
    for name in names:
        cls = type(name, (cls,), {})
    head = nn.ModuleList([nn.Identity(), cls()]) if cascade else cls()
    assert gives_probabilities(with_head(head)) == any(name in KNOWN for name in names)


def test_a_setting_has_the_last_word():
    for head in (SoftmaxHead, RenamedHead):
        for setting in (True, False):
            assert gives_probabilities(with_head(head.__new__(head)), setting) is setting


def distribution(channels=5):
    return torch.rand(2, channels, 3, 4).softmax(1)


@pytest.mark.parametrize('scores', [
    distribution(), distribution(150).bfloat16(), torch.eye(5)[:, :, None, None]],
    ids=['softmax', 'bfloat16', 'one-hot'])
def test_scores_that_look_like_probabilities_warn_once(scores):
    host = with_head(nn.Conv2d(1, 1, 1))
    with pytest.warns(UserWarning, match=r'of Conv2d .* set a\.key=True .* else a\.key=False'):
        warn_of_probabilities(host, scores, 'a.key')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_probabilities(host, scores, 'a.key')
    with pytest.warns(UserWarning):  # each head for itself
        warn_of_probabilities(with_head(nn.Conv2d(1, 1, 1)), scores, 'a.key')


@pytest.mark.parametrize('scores', [
    torch.randn(2, 5, 3, 4), torch.zeros(2, 5, 3, 4), torch.rand(2, 5, 3, 4),
    distribution() - 0.01, distribution().log(), torch.ones(2, 1, 3, 4)],
    ids=['logits', 'zero', 'any sum', 'negative', 'logarithms', 'one channel'])
def test_other_scores_do_not_warn(scores):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_probabilities(with_head(nn.Identity()), scores, 'a.key')


@pytest.mark.parametrize('setting', [True, False])
def test_a_settled_head_does_not_warn(setting):
    host = with_head(nn.Identity())
    gives_probabilities(host, setting)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_probabilities(host, distribution(), 'a.key')


def refine(kind, **settings):
    model = MODELS.build(ConfigDict(refine_cfg(**settings) | dict(segmentor=segmentor(kind))))
    return lambda: model.eval().low_resolution(torch.randn(1, 3, 96, 96)).full()


META = dict(ori_shape=(96, 96), img_shape=(96, 96), padding_size=[0] * 4)


def crm(kind, **settings):
    model = MODELS.build(ConfigDict(refined_cfg(**settings) | dict(segmentor=segmentor(kind))))
    return lambda: model.eval().upsampled(torch.randn(1, 3, 96, 96), META).full()


def tta(kind, **settings):
    """The mean of one view."""
    model = SegTTAModel(ConfigDict(segmentor(kind)), **settings).eval()

    def scores():
        view = model.module.inference(torch.randn(1, 3, 96, 96), [dict(META)])[0]
        return model._probabilities(view).log()[None]
    return scores


@pytest.mark.parametrize(('host', 'key'), [
    (refine, 'model.probabilities'), (crm, 'model.probabilities'),
    (tta, 'tta_model.probabilities')])
@torch.no_grad()
def test_every_host_asks_its_heads_and_its_config(host, key):
    """Logits are the logarithms of probabilities where the head or the config says so."""
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=f'set {key}=True'):
        assert host('SoftmaxHead')().exp().sum(1).sub(1).abs().max() > 0.5 or host is tta
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='the scores of')
        for known in (host('SoftmaxHead', probabilities=True), host('RenamedHead')):
            assert known().max() <= 0
        assert host('FCNHead')() is not None
        unknown = host('SoftmaxHead', probabilities=False)()
        assert unknown.max() > 0 or host is tta


@torch.no_grad()
def test_an_ensemble_asks_each_member():
    model = MODELS.build(ConfigDict(type='mmsparse.SegEnsemble', segmentors=[
        segmentor('RenamedHead'), segmentor('FCNHead')])).eval()
    x = torch.randn(1, 3, 96, 96)
    masks, logits = (m.inference(x, [dict(META)]) for m in model.segmentors)
    torch.testing.assert_close(model.encode_decode(x, [META]).exp(),
                               (masks + logits.softmax(1)) / 2)
