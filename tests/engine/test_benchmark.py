"""The benchmark measures what it says: stages, masks, cost, memory. No times are tested."""
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmsparse.engine.benchmark import (
    benchmark,
    boundary_mask,
    dense_macs,
    forced_selection,
    peak_memory,
    precision_context,
    scene_batch,
    thin_bands,
)
from mmsparse.engine.stages import StageClock
from mmsparse.registry import MODELS
from mmsparse.sparse import coarser
from tests.models.tiny import batch, build_refine, segmentor_cfg

STAGES = ['low-resolution pass', 'selection', 'gathering', 'U-Net', 'ensembling', 'write-back']


def test_stages_are_timed_and_the_model_is_left_as_it_was():
    model = build_refine()
    before = {id(m): set(vars(m)) for m in model.modules()}
    clock = StageClock(model)
    with torch.no_grad(), clock:
        for _ in range(2):
            model(**batch(model), mode='predict')
    with torch.no_grad():
        model(**batch(model), mode='predict')
    assert list(clock.milliseconds) == STAGES
    assert all(len(times) == 2 and min(times) > 0 for times in clock.milliseconds.values())
    assert {id(m): set(vars(m)) for m in model.modules()} == before


@pytest.mark.filterwarnings('ignore:EntropySelector.alpha')
def test_a_stage_that_does_not_run_takes_no_time():
    model = build_refine(alpha=9)
    with torch.no_grad(), StageClock(model) as clock:
        model(**batch(model), mode='predict')
    assert clock.milliseconds['U-Net'] == [0.0] < clock.milliseconds['selection']


def test_a_model_without_stages_is_named():
    with pytest.raises(TypeError, match='Linear names no STAGES'):
        StageClock(nn.Linear(2, 2))


@pytest.mark.parametrize('density', [0.001, 0.118, 1.0])
def test_boundary_mask_is_exact_and_hugs_the_boundaries(density):
    label = np.zeros((60, 80), np.uint8)
    label[:, 30:] = 1
    mask = boundary_mask(label, density)
    assert mask.sum() == round(density * 4800)
    if density == 0.118:
        columns = mask.any(0).nonzero()[0]
        assert columns.min() >= 24 and columns.max() <= 36


def test_forced_selection_is_undone():
    model, mask = build_refine(), torch.zeros(2, 96, 101, dtype=torch.bool)
    mask[:, 10:20] = True
    with torch.no_grad():
        with forced_selection(model, mask), StageClock(model):
            forced = model.predict(**batch(model))
        with forced_selection(model, mask):  # again: the clock put back what it had found
            again = model.predict(**batch(model))
        free = model.predict(**batch(model))
    for i in range(2):
        assert torch.equal(forced[i].selected.data[0], mask[i])
        assert torch.equal(again[i].selected.data[0], mask[i])
        assert not torch.equal(free[i].selected.data[0], mask[i])


def test_measures_models_in_turns():
    models = {'dense': MODELS.build(ConfigDict(segmentor_cfg())).eval(), 'refined': build_refine()}
    calls = []
    for name, model in models.items():
        model.register_forward_hook(lambda *_, name=name: calls.append(name))
    rows = benchmark(models, size=(96, 128), batch_size=2, densities=dict(refined=0.1),
                     iterations=4, warmup=1)
    assert [row.name for row in rows] == ['dense', 'refined']
    assert calls[:10] == ['refined', 'dense', 'dense', 'refined'] + [
        'refined', 'dense', 'dense', 'refined', 'refined', 'dense']
    dense, refined = rows
    assert dense.stages == {} and dense.density is None
    assert list(refined.stages) == STAGES
    assert refined.density == pytest.approx(0.1, abs=1e-4)
    assert 0 < dense.milliseconds <= dense.p95
    assert min(dense.gmacs, refined.gmacs) > 0
    images, labels = scene_batch(2, (96, 128))
    mask = torch.from_numpy(np.stack([boundary_mask(label, 0.1) for label in labels]))
    head = models['refined'].decode_head
    k, n = 5, int(mask.sum())
    pixels = head.extractor.macs(mask) + n * (
        8 * k + (2 * k + 2) * 64 + 64 * 2 + k * 64 + 64 * k)
    low = dense_macs(lambda: models['refined'].low_resolution(torch.zeros(2, 3, 96, 128)))
    assert refined.gmacs == pytest.approx((low + pixels) / 2 / 1e9, rel=1e-9)


def test_dense_macs_by_hand():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert dense_macs(lambda: conv(torch.zeros(2, 3, 10, 12))) == 2 * 120 * 27 * 8


def test_peak_memory_sees_what_was_freed_again():
    def work():
        torch.ones(64 * 2**18).sum()

    peak = peak_memory(work, torch.device('cpu'))
    assert peak == -1 or 60 * 2**20 < peak < 100 * 2**20


def test_precision():
    with pytest.raises(ValueError, match="one of .*'bf16'"), \
            precision_context([], 'bf16', torch.device('cpu')):
        pass
    with pytest.raises(ValueError, match='fp16 needs a CUDA device, got cpu'), \
            precision_context([], 'fp16', torch.device('cpu')):
        pass


def test_thin_bands_are_exact_and_thin():
    mask = thin_bands((256, 384), 0.118)
    assert mask.shape == (1, 256, 384) and mask.sum() == round(0.118 * 256 * 384)
    assert coarser(mask, 1).float().mean() > 0.2, 'they fill the next level twice as much'
