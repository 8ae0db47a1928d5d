"""Training in bfloat16 on a CPU, through mmengine's own interface."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn


@pytest.mark.usefixtures('computes_bfloat16')
def test_a_step_computes_in_bfloat16_and_keeps_float32_weights():
    model = nn.Linear(4, 2)
    wrapper = build_optim_wrapper(model, dict(
        type='mmsparse.BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=0.1),
        accumulative_counts=2))
    before, x = model.weight.detach().clone(), torch.randn(3, 4)
    for step in range(2):
        with wrapper.optim_context(model):
            y = model(x)
        assert y.dtype == torch.bfloat16
        wrapper.update_params(y.float().square().mean())
        assert torch.equal(model.weight, before) == (step == 0), 'gradients are accumulated'
    assert model.weight.dtype == torch.float32
    assert model(x).dtype == torch.float32, 'only within the context'
