"""Bfloat16 is computed in where it pays, and nowhere else."""
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmsparse import precision
from mmsparse.engine.fusion import fuse_for_inference
from tests.models.crm.builders import build, picture
from tests.models.tiny import batch, build_refine


@pytest.mark.parametrize(('flags', 'found'), [
    ('flags : fpu avx2 amx_bf16', True), ('flags : fpu avx512_bf16', True),
    ('Features : fp asimd bf16', True), ('flags : fpu avx2 avx512f', False), (None, True)])
def test_instructions(flags, found, monkeypatch):
    """Of x86 and ARM; where the system does not say, they are taken for granted."""
    monkeypatch.setattr(Path, 'exists', lambda _: flags is not None)
    monkeypatch.setattr(Path, 'read_text', lambda _: flags)
    assert precision.computes_bfloat16.__wrapped__() is found


def scores(dtype):
    """Of SparseRefine, fused."""
    model = fuse_for_inference(build_refine(), dtype=dtype)
    return model(**batch(model), mode='predict')[0].seg_logits.data


def refined(dtype):
    """By CRM."""
    return build(amp=dtype == 'bfloat16').refine(*picture((64, 80))).mask


def trained(dtype):
    """In the forward pass of a training."""
    model = nn.Linear(4, 2)
    nn.init.constant_(model.weight, 0.3)
    wrapper = build_optim_wrapper(model, dict(
        type='mmsparse.BFloat16OptimWrapper' if dtype == 'bfloat16' else 'OptimWrapper',
        optimizer=dict(type='SGD', lr=0.1)))
    with wrapper.optim_context(model):
        return model(torch.arange(12.).view(3, 4))


@pytest.mark.parametrize('computes_bfloat16', [False], indirect=True)
@pytest.mark.usefixtures('computes_bfloat16')
@pytest.mark.parametrize('compute', [scores, refined, trained])
@torch.no_grad()
def test_a_cpu_without_instructions_computes_in_float32(compute):
    """Wherever bfloat16 can be asked for; it is said once."""
    torch.manual_seed(0)
    expected = compute('float32')
    with pytest.warns(UserWarning, match='bfloat16 was asked for') as caught:
        for _ in range(2):
            torch.manual_seed(0)
            assert torch.equal(compute('bfloat16'), expected)
    assert sum('bfloat16' in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize('computes_bfloat16', [False], indirect=True)
@pytest.mark.usefixtures('computes_bfloat16')
def test_a_gpu_is_not_asked():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert precision.takes_bfloat16('cuda')
