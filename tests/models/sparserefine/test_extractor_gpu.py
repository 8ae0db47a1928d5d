"""The U-Net on CUDA (spconv's implicit GEMM) against the float64 dense oracle on the CPU.

The CPU twins of these tests are in test_sparse_unet.py.
"""
import copy

import pytest
import torch

from mmsparse.sparse import SparseMap, Topology
from tests.models.sparserefine.builders import (
    build,
    compare,
    masks,
    randomize_norms,
    relative_error,
)
from tests.models.tiny import batch, build_refine

pytestmark = pytest.mark.gpu
CASES = pytest.mark.parametrize(('kind', 'size'), [
    ('boundary', (2, 97, 130)), ('full', (1, 96, 96)), ('random', (2, 96, 101)),
    ('one_empty', (2, 97, 130))])


@CASES
@pytest.mark.parametrize('padding', [0, 1])
def test_float32_forward_and_gradients(padding, kind, size):
    torch.manual_seed(0)
    channels = (8, 16, 24, 32)
    net = randomize_norms(build(channels=channels, down_padding=padding)).eval()
    image, mask = torch.randn(size[0], 3, *size[1:]), masks(*size)[kind]
    errors = compare(OnCuda(net), image, mask, padding=padding, depth=len(channels))
    assert max(errors) < 1e-4


class OnCuda:
    """A copy of a network on CUDA that takes and returns CPU tensors, gradients included."""

    def __init__(self, net):
        self.net = copy.deepcopy(net).cuda()
        self.training = net.training
        self.zero_grad = self.net.zero_grad

    def state_dict(self):
        return {k: v.cpu() for k, v in self.net.state_dict().items()}

    def named_parameters(self):
        return [(k, Cpu(p)) for k, p in self.net.named_parameters()]

    def __call__(self, pixels):
        on_cuda = SparseMap(pixels.features.cuda(), Topology(pixels.topology.mask.cuda()))
        return self.net(on_cuda).cpu()


class Cpu:
    """A CUDA parameter whose gradient reads as a CPU tensor."""

    def __init__(self, parameter):
        self.parameter = parameter

    @property
    def grad(self):
        return self.parameter.grad.cpu()


@CASES
@pytest.mark.parametrize('engine, dtype, tolerance', [
    ('auto', torch.float32, 1e-4), ('auto', torch.float16, 2e-2),
    ('sparse', torch.float32, 1e-5), ('sparse', torch.float16, 2e-2)])
@pytest.mark.parametrize('padding', [0, 1])
@torch.no_grad()
def test_inference_by_dtype(padding, engine, dtype, tolerance, kind, size):
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(16, 32, 64), down_padding=padding)).eval()
    net.engine = engine
    pixels = SparseMap.from_mask(torch.randn(size[0], 3, *size[1:]), masks(*size)[kind])
    reference = copy.deepcopy(net).double()
    reference.engine = 'dense'
    expected = reference(pixels.replace_features(pixels.features.double()))
    found = OnCuda(net.to(dtype))(pixels)
    assert found.dtype == dtype
    assert relative_error([found], [expected]) < tolerance


@torch.no_grad()
def test_the_whole_model_agrees_with_the_cpu():
    model = build_refine()
    data = batch(model)
    expected = model.predict(**data)
    cuda = copy.deepcopy(model).cuda()
    inputs = data['inputs'].cuda()
    found = cuda.predict(inputs, [s.clone().to('cuda') for s in batch(model)['data_samples']])
    for a, b in zip(found, expected, strict=True):
        for name in ('pred_sem_seg', 'low_res_sem_seg', 'selected'):
            agree = a.get(name).data.cpu() == b.get(name).data
            assert agree.float().mean() > 0.999, name


def test_a_training_step_under_autocast():
    model = build_refine().cuda().train()
    data = batch(model)
    samples = [s.to('cuda') for s in data['data_samples']]
    with torch.autocast('cuda', torch.float16):
        losses = model.loss(data['inputs'].cuda(), samples)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad.isfinite().all() for p in model.decode_head.parameters())
