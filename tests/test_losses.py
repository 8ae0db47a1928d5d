"""A loss of nothing."""
import torch
from torch import nn

from mmsparse.losses import zero_loss


def test_every_parameter_has_a_gradient_of_zeros():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(3, 1)).to(memory_format=torch.channels_last)
    net.scalar = nn.Parameter(torch.ones(()))
    net.in_half = nn.Parameter(torch.ones(2).half())
    net[1].weight.data.fill_(torch.inf)
    net[1].bias.requires_grad_(False)
    seen = torch.randn(4, 0, 5, requires_grad=True)
    loss = zero_loss([*net.parameters(), seen])
    assert loss.dtype == torch.float32 and loss.shape == () and float(loss) == 0
    loss.backward()
    for tensor in (*net.parameters(), seen):
        if tensor.requires_grad:
            assert torch.equal(tensor.grad, torch.zeros_like(tensor))
    assert net[1].bias.grad is None


def test_of_float64_and_of_nothing():
    assert zero_loss([torch.ones(2, dtype=torch.float64)]).dtype == torch.float64
    assert float(zero_loss([])) == 0
