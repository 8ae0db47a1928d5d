"""CUDA graphs of the low-resolution pass; the replay itself needs a GPU."""
import pytest
import torch

from mmsparse.engine.cuda_graph import GraphReplay, graphed_low_resolution
from tests.models.tiny import batch, build_refine


def test_needs_cuda_and_evaluation_mode():
    with pytest.raises(ValueError, match='got training=False on cpu'), \
            graphed_low_resolution(build_refine()):
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
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@torch.no_grad()
def test_replayed_classes_are_the_same():
    model = build_refine().cuda()
    inputs = [batch(model) for _ in range(3)]
    before = [model(**b, mode='predict') for b in inputs]
    with graphed_low_resolution(model):
        after = [model(**b, mode='predict') for b in inputs]
    assert 'inference' not in vars(model.segmentor)
    for x, y in zip(sum(before, []), sum(after, []), strict=True):
        # under capture the libraries may choose other kernels, which round otherwise
        assert (x.low_res_sem_seg.data != y.low_res_sem_seg.data).float().mean() < 1e-3
