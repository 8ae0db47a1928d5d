"""Two processes (gloo, CPU) with very different numbers of active pixels, one of them with none."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsparse.checkpoint import load_checkpoint
from tests.ddp_worker import SHARES, mask_of, prepare, total
from tests.models.tiny import batch, build_refine

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What both ranks saved for a model; they are started once for all models."""
    out = tmp_path_factory.mktemp('ddp')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
               '-m', 'tests.ddp_worker', str(out)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return lambda model: [torch.load(out / f'{model}_{rank}.pt') for rank in range(2)]


@pytest.mark.parametrize('norm_training', [False, True])
@pytest.mark.parametrize('case', SHARES)
def test_all_ranks_end_with_one_gradient_for_every_parameter(ranks, case, norm_training):
    """Without ``find_unused_parameters``: DDP would have raised for one that got none."""
    first, second = (r[case, norm_training] for r in ranks('sparserefine'))
    for name, gradient in first.items():
        assert gradient is not None and torch.equal(gradient, second[name]), name


@pytest.mark.parametrize('case', SHARES)
def test_gradients_equal_those_of_the_joint_batch_on_one_process(ranks, case):
    """With fixed statistics: batch norm itself is local to a process, as in the paper."""
    model = prepare(mask_of(case), norm_training=False)
    total(model(**batch(build_refine(), batch_size=2), mode='loss')).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    found = ranks('sparserefine')[0][case, False]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4,
                                   msg=lambda m, name=name: f'{name}: {m}')
    nothing = all(g.abs().max() == 0 for g in expected.values())
    assert nothing == (case == 'all empty')


@pytest.mark.parametrize('model', ['mask_rcnn', 'fqdet'])
def test_effseg_where_one_rank_has_no_objects(ranks, model):
    first, second = ranks(model)
    for name, gradient in first.items():
        assert gradient is not None and torch.equal(gradient, second[name]), name
    assert any(g.abs().max() > 0 for n, g in first.items() if 'mask_head' in n)


# ---- mmengine's runner, through our tools, without a GPU ----

LINE = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    metainfo = dict()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([float(index)]))


@MODELS.register_module()
class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))
        self.frozen = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.frozen.weight)
        torch.nn.init.zeros_(self.frozen.bias)

    def forward(self, inputs, mode):
        result = self.weight * inputs + self.frozen(inputs)
        if mode == 'predict':
            return list(result)
        return dict(loss=(result - 2 * inputs).square().mean())


@METRICS.register_module()
class Total(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(count=len(results), total=sum(results))
"""
CONFIG = """
default_scope = 'mmengine'
custom_imports = dict(imports=['line'])
model = dict(type='Line')
loader = dict(batch_size=2, num_workers=0, dataset=dict(type='Numbers'),
              collate_fn=dict(type='default_collate'))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader)
val_dataloader = train_dataloader
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
val_evaluator = dict(type='Total')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
env_cfg = dict(dist_cfg=dict(backend='nccl'))
custom_hooks = [dict(type='mmsparse.FreezeHook', modules=['frozen'])]
find_unused_parameters = True
"""


@pytest.mark.slow
def test_the_training_tool_on_two_processes(tmp_path):
    """A step equals that on the joint batch, what is frozen stays as it was, and validation sees
    every sample once.

    As ``mim train mmsparse CONFIG --launcher pytorch --gpus 2`` starts them; mmengine itself calls
    ``torch.cuda.set_device`` there, whatever the backend.
    """
    (tmp_path / 'line.py').write_text(LINE)
    (tmp_path / 'config.py').write_text(CONFIG)
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{tmp_path}',
               CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone',
         '--nproc_per_node=2', str(ROOT / 'tools' / 'train.py'), 'config.py', '--work-dir', 'run',
         '--launcher', 'pytorch'],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    x = torch.arange(4.0)
    expected = 0.5 - 0.1 * (2 * x * (0.5 * x - 2 * x)).mean()
    state = load_checkpoint(tmp_path / 'run' / 'epoch_1.pth')['state_dict']
    weight = state['weight']
    torch.testing.assert_close(weight, expected)
    assert not state['frozen.weight'].any() and not state['frozen.bias'].any()
    log = done.stdout + done.stderr
    assert re.search(rf'count: 4(\.0+)?  total: {float(weight) * 6:.4f}', log), log[-1000:]
