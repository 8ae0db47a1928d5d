"""Parts of a model that do not learn, through mmengine's runner."""
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.ModuleDict(dict(
            box=nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
            mask=nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.backbone(torch.stack(inputs))
        return dict(loss_box=self.head.box(x).square().mean(),
                    loss_mask=(self.head.mask(x) - 3).square().mean())


def train(folder, loop, modules):
    torch.manual_seed(0)
    model = Toy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = [dict(inputs=torch.randn(3, 6, 8))] * 4
    Runner(model, str(folder), train_dataloader=dict(
        batch_size=2, dataset=data, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=loop, optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5), clip_grad=dict(max_norm=1)),
        default_scope='mmdet', custom_hooks=[dict(type='mmsparse.FreezeHook', modules=modules)],
        experiment_name=f'freeze_{folder.name}').train()
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


@pytest.mark.parametrize('loop', [
    dict(by_epoch=False, max_iters=3), dict(by_epoch=True, max_epochs=2)])
def test_only_the_rest_learns(tmp_path, loop):
    """Neither weights change nor statistics of norms, nor does weight decay touch them."""
    state = set(Toy().state_dict())
    assert train(tmp_path, loop, ['backbone', 'head.box']) == {
        name for name in state if name.startswith('head.mask')}
    assert train(tmp_path, loop, []) == state


def test_unknown_part(tmp_path):
    with pytest.raises(ValueError, match=r"'neck', which Toy does not: .*'backbone', 'head'"):
        train(tmp_path, dict(by_epoch=False, max_iters=1), ['backbone', 'neck'])
