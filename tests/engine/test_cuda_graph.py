"""CUDA graphs of dense networks; the replay itself needs a GPU."""
import pytest
import torch

from mmsparse.engine.cuda_graph import GraphReplay, graphed_inference
from tests.models.tiny import batch, build_refine


def test_needs_cuda_and_evaluation_mode():
    with pytest.raises(ValueError, match='got training=False on cpu'), \
            graphed_inference(build_refine()):
        pass


def test_what_cannot_be_captured_runs_as_it_is(monkeypatch):
    """The fallback, with a capture that fails as one does that waits for the device."""
    monkeypatch.setattr(torch.cuda, 'Stream', lambda: (_ for _ in ()).throw(
        RuntimeError('operation not permitted when stream is capturing\nmore')))
    replay, calls = GraphReplay(lambda x: calls.append(1) or x + 1), []
    with pytest.warns(UserWarning, match='cannot be captured .* stream is capturing$'):
        assert torch.equal(replay(torch.zeros(2)), torch.ones(2))
    assert torch.equal(replay(torch.zeros(2)), torch.ones(2)) and len(calls) == 2


@pytest.mark.gpu
@pytest.mark.parametrize('dense', [False, True])
@torch.no_grad()
def test_replayed_classes_are_the_same(dense):
    model = build_refine().cuda()
    inputs = [batch(model) for _ in range(3)]
    model, found = (model.segmentor, 'pred_sem_seg') if dense else (model, 'low_res_sem_seg')
    before = [model(**b, mode='predict') for b in inputs]
    with graphed_inference(model):
        after = [model(**b, mode='predict') for b in inputs]
    assert 'inference' not in vars(model if dense else model.segmentor)
    for x, y in zip(sum(before, []), sum(after, []), strict=True):
        # under capture the libraries may choose other kernels, which round otherwise
        assert (x.get(found).data != y.get(found).data).float().mean() < 1e-3
