"""The progress hook in a real, tiny training."""

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmsparse.engine import RichProgressHook


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(self.slope * inputs.float() - 1).square().mean())


def test_bar_reaches_the_last_iteration(tmp_path):
    data = [dict(inputs=torch.ones(1)) for _ in range(4)]
    runner = Runner(
        Line(), work_dir=str(tmp_path), train_dataloader=DataLoader(data, batch_size=1),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='mmsparse.RichProgressHook', description='Line')])
    runner.train()
    hook, = (h for h in runner.hooks if isinstance(h, RichProgressHook))
    task, = hook.progress.tasks
    assert task.completed == task.total == 4
    assert task.fields['note'].startswith('loss ')
    assert not hook.progress.live.is_started
