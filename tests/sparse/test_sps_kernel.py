"""The Triton kernel of EffSeg's fusion: interpreted on the CPU, and run where there is a GPU."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsparse.sparse import (
    SPSConv2d,
    from_dense,
    neighbors,
    select,
    split,
    sum_of_convolutions,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='needs Triton')
def test_the_kernel_in_tritons_interpreter_equals_float64():
    done = subprocess.run(
        [sys.executable, '-m', 'tests.sparse.sps_kernel_worker'], cwd=ROOT, capture_output=True,
        text=True, timeout=600, env=dict(os.environ, TRITON_INTERPRET='1', PYTHONPATH=str(ROOT)))
    assert done.stdout.endswith('done\n'), done.stderr[-3000:]


def grids(device):
    x = from_dense(torch.randn(4, 32, 14, 14, device=device))
    for _ in range(2):
        x = select(x, torch.rand(len(x.active), device=device) < 0.5)
        x = split(x, torch.randn(len(x.active), 4, 32, device=device))
    return x


@pytest.mark.gpu
@pytest.mark.parametrize('dtype, close', [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_a_gpu_agrees_with_the_cpu_forward_and_backward(dtype, close):
    x, results = grids('cpu'), []
    conv = SPSConv2d(32, 32)
    for device in ('cpu', 'cuda'):
        active = x.active.to(device, dtype).requires_grad_()
        passive = x.passive.to(device, dtype).requires_grad_()
        on = x._replace(active=active, passive=passive, index=x.index.to(device),
                        cells=x.cells.to(device))
        params = [p.detach().to(device, dtype).requires_grad_() for p in conv.parameters()]
        out = sum_of_convolutions(on.bank, [neighbors(on, conv.offsets)], [params[0].flatten(1)],
                                  params[1:], rectify=True)
        grads = torch.autograd.grad(out.square().sum(), [active, passive, *params])
        results.append([t.float().cpu() for t in (out, *grads)])
    for a, b in zip(*results, strict=True):
        scale = float(a.abs().max())
        torch.testing.assert_close(a / scale, b / scale, atol=close, rtol=close)


@pytest.mark.gpu
def test_a_gpu_is_deterministic_where_asked():
    x, conv = grids('cuda'), SPSConv2d(32, 32).cuda()
    active = x.active.requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        found = [torch.autograd.grad(conv(x).square().sum(), [active, *conv.parameters()])
                 for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
