"""The sparse U-Net and its dense twin, masks, and how far two results are apart."""
import torch

from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap
from tests.oracles import DenseUNet, boundary_mask


def build(**kwargs):
    return MODELS.build(dict(type='mmsparse.SparseUNet', **kwargs))


def randomize_norms(net, seed=0):
    """Statistics and affine parameters as after training, or eval mode would test little."""
    g = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.weight.data.uniform_(0.5, 1.5, generator=g)
            module.bias.data.normal_(0, 0.2, generator=g)
            module.running_mean.normal_(0, 0.2, generator=g)
            module.running_var.uniform_(0.5, 1.5, generator=g)
    return net


def relative_error(found, expected):
    """Norm of the difference as a share of the norm; lists count as one long vector."""
    error = sum((f.double() - e).square().sum() for f, e in zip(found, expected, strict=True))
    return (error / sum(e.square().sum() for e in expected)).sqrt().item()


def compare(net, image, mask, *, padding, depth):
    """Relative errors of features, input gradient and parameter gradients against the oracle."""
    state = {k: v.detach().double() for k, v in net.state_dict().items()}
    names = dict(net.named_parameters())
    for name in names:
        state[name].requires_grad_()
    image64 = image.clone().double().requires_grad_()
    expected = DenseUNet(state, depth, padding, net.training)(image64, mask[:, None].double())
    net.zero_grad()
    image = image.clone().requires_grad_()
    found = net(SparseMap.from_mask(image, mask))
    # A random projection: the sum of squares behind a batch norm has no gradient to speak of.
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).double()
    (expected * weight).sum().backward()
    (found * weight.to(found.dtype)).sum().backward()
    return (relative_error([found], [expected]), relative_error([image.grad], [image64.grad]),
            relative_error([p.grad for p in names.values()], [state[n].grad for n in names]))


def masks(batch, height, width):
    full = torch.ones(batch, height, width, dtype=torch.bool)
    one_empty = boundary_mask(batch, height, width, seed=3)
    one_empty[0] = False
    return dict(boundary=boundary_mask(batch, height, width), full=full,
                random=torch.rand(batch, height, width) < 0.1, one_empty=one_empty)
