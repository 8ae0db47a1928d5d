"""Structure-preserving sparsity against what the authors' own modules returned."""
import numpy as np
import pytest
import torch

from mmsparse.sparse import SPSConv2d, SPSMap, from_dense, select, split
from tests import authors

KERNELS = [(3, 1), (3, 3), (3, 5), (1, 1), (5, 2)]  # size, dilation
EXACT = dict(rtol=0, atol=1e-12)


@pytest.fixture(scope='module')
def golden():
    return authors.golden('effseg_sps')


def noise(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(authors.noise(name, shape))


def rounds(golden):
    """Two rounds: select, split, rows of known values; the maps after both steps of each."""
    x = from_dense(noise('sps.map', 2, 5, 6, 7))
    for step in range(2):
        selected = select(x, torch.from_numpy(golden[f'step{step}_keep']))
        x = split(selected, selected.active[:, None].expand(-1, 4, -1))
        x = x._replace(active=noise(f'sps.active{step}', len(x.active), 5).requires_grad_(),
                       passive=noise(f'sps.passive{step}', len(x.passive), 5).requires_grad_())
        yield step, selected, x


def test_selecting_and_splitting_is_the_authors(golden):
    """Rows, their order, and the index map."""
    for step, selected, x in rounds(golden):
        found = dict(
            selected_active=selected.active, selected_passive=selected.passive,
            selected_index=selected.index, index=x.index, cells_group_x_y=x.cells[:, [0, 2, 1]],
            counts_active_passive=torch.tensor([len(x.active), len(x.passive)]))
        for name, value in found.items():
            np.testing.assert_array_equal(value.detach(), golden[f'step{step}_{name}'], name)


def convolution(size: int, dilation: int) -> SPSConv2d:
    conv, name = SPSConv2d(5, 4, kernel_size=size, dilation=dilation), f'sps.conv{size}_{dilation}'
    with torch.no_grad():  # weights are float32, widened
        for key, shape in (('weight', (4, size * size * 5)), ('bias', (4, ))):
            entry = getattr(conv, key)
            entry.copy_(torch.from_numpy(authors.value(f'{name}.{key}', shape)).view_as(entry))
    return authors.widened(conv)


@pytest.mark.parametrize('size, dilation', KERNELS)
def test_convolutions_are_the_authors(golden, size, dilation):
    """Forward and all gradients, after each round."""
    conv = convolution(size, dilation)

    def check(step: int, x: SPSMap) -> None:
        out, name = conv(x), f'step{step}_kernel{size}_dilation{dilation}'
        cotangent = noise(f'sps.cotangent{step}_{size}_{dilation}', *out.shape)
        active, passive, weight, bias = torch.autograd.grad(
            out, [x.active, x.passive, conv.weight, conv.bias], cotangent)
        found = {'': out[::3], '_gradient_active': active[::6], '_gradient_passive': passive[::3],
                 '_gradient_weight': weight.flatten(1)[:, ::3 if size > 1 else 1],
                 '_gradient_bias': bias}
        for part, value in found.items():
            torch.testing.assert_close(value, torch.from_numpy(golden[name + part]), **EXACT)

    for step, _, x in rounds(golden):
        check(step, x)
