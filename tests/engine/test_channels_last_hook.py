"""The layout of the weights in training, set through mmengine's runner."""
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.seen = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        y = self.conv(torch.stack(inputs))
        self.seen.append(y.is_contiguous(memory_format=torch.channels_last))
        return dict(loss=y.square().mean())


def test_maps_and_loaded_weights_are_channels_last(tmp_path):
    weights = {key: torch.randn_like(value) for key, value in Toy().state_dict().items()}
    torch.save(weights, tmp_path / 'weights.pth')
    model, first = Toy(), []

    class Remember(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            first.append({key: value.clone() for key, value in model.state_dict().items()})

    data = [dict(inputs=torch.randn(3, 6, 8))] * 2
    Runner(model, str(tmp_path), train_dataloader=dict(
        batch_size=2, dataset=data, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=2), optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1)), load_from=str(tmp_path / 'weights.pth'),
        default_scope='mmseg', custom_hooks=[dict(type='mmsparse.ChannelsLastHook'), Remember()],
        experiment_name='channels_last').train()
    assert model.seen == [True, True]
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(first[0][key], value) for key, value in weights.items())
