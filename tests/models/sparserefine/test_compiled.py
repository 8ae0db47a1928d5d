"""Training under ``torch.compile``: spconv is left out, everything dense is not."""
import copy

import pytest
import torch
import torch._dynamo
from mmengine.optim import OptimWrapper
from torch._dynamo.utils import counters

from tests.models.tiny import batch, build_refine, segmentor_cfg


def train(model, steps, train_step):
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), 1e-2))
    logs = []
    for seed in range(steps):  # other pixels, another number of them
        data = batch(model, seed=seed)
        logs.append(train_step(dict(inputs=list(data['inputs'].byte()),
                                    data_samples=data['data_samples']), optimizer))
    return logs


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one_and_spconv_one_break():
    """mmengine's ``compile=True`` compiles ``train_step``; the back end matters to none of this."""
    segmentor = segmentor_cfg()
    segmentor['backbone'] |= dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    segmentor['decode_head'] |= dict(in_channels=8)
    plain = build_refine(segmentor=segmentor, sharpness=100.0).train()
    compiled = copy.deepcopy(plain)
    torch._dynamo.reset()
    counters.clear()
    found = train(compiled, 3, torch.compile(compiled.train_step, backend='eager'))
    breaks, graphs = counters['graph_break'], counters['stats']['unique_graphs']
    expected = train(plain, 3, plain.train_step)
    for a, b in zip(found, expected, strict=True):
        for name, value in b.items():
            torch.testing.assert_close(a[name], value, atol=1e-5, rtol=1e-4)
    for (name, a), b in zip(compiled.state_dict().items(), plain.state_dict().values(),
                            strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
    assert not [reason for reason in breaks if 'spconv' in reason or 'cumm' in reason], breaks
    assert any('torch.compiler.disable' in reason for reason in breaks)
    assert 0 < graphs < 30  # with spconv in sight there were more than a hundred
    torch._dynamo.reset()
