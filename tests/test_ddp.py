"""Two processes (gloo, CPU) with very different numbers of active pixels, one of them with none."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ddp_worker import SHARES, mask_of, prepare, total
from tests.models.tiny import batch, build_refine

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Gradients of both ranks, by case and by whether batch norm used batch statistics."""
    out = tmp_path_factory.mktemp('ddp')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
               '-m', 'tests.ddp_worker', str(out)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f'{rank}.pt') for rank in range(2)]


@pytest.mark.parametrize('norm_training', [False, True])
@pytest.mark.parametrize('case', SHARES)
def test_all_ranks_end_with_one_gradient_for_every_parameter(ranks, case, norm_training):
    """Without ``find_unused_parameters``: DDP would have raised for one that got none."""
    first, second = (r[case, norm_training] for r in ranks)
    for name, gradient in first.items():
        assert gradient is not None and torch.equal(gradient, second[name]), name


@pytest.mark.parametrize('case', SHARES)
def test_gradients_equal_those_of_the_joint_batch_on_one_process(ranks, case):
    """With fixed statistics: batch norm itself is local to a process, as in the paper."""
    model = prepare(mask_of(case), norm_training=False)
    total(model(**batch(build_refine(), batch_size=2), mode='loss')).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    found = ranks[0][case, False]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4,
                                   msg=lambda m, name=name: f'{name}: {m}')
    nothing = all(g.abs().max() == 0 for g in expected.values())
    assert nothing == (case == 'all empty')


@pytest.mark.parametrize('worker', ['ddp_effseg_worker', 'ddp_fqdet_worker'])
def test_effseg_where_one_rank_has_no_objects(tmp_path, worker):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
               '-m', f'tests.{worker}', str(tmp_path)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    for name, gradient in first.items():
        assert gradient is not None and torch.equal(gradient, second[name]), name
    assert any(g.abs().max() > 0 for n, g in first.items() if 'mask_head' in n)
