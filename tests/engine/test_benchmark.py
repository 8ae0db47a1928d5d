"""The benchmark measures what it says: stages, masks, cost, memory. No times are tested."""
import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmsparse.engine.benchmark import (
    benchmark,
    compare_engines,
    forced_selection,
    precision_context,
    predict_time,
    thin_bands,
)
from mmsparse.engine.complexity import dense_macs
from mmsparse.engine.machine import dense_conv_rate, peak_memory
from mmsparse.engine.stages import StageClock
from mmsparse.registry import MODELS
from mmsparse.sparse import Topology
from tests.models.tiny import PREPROCESSOR, batch, build_refine, refined_cfg, segmentor_cfg

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
    with pytest.raises(TypeError, match='stages of a SparseRefineSegmentor, got Linear'):
        StageClock(nn.Linear(2, 2))


@pytest.mark.parametrize('density', [0.001, 0.118, 1.0])
def test_thin_bands_are_exact(density):
    mask = thin_bands((256, 384), density, batch_size=2)
    assert mask.shape == (2, 256, 384)
    assert mask.flatten(1).sum(1).tolist() == [round(density * 256 * 384)] * 2
    assert density == 1 or not torch.equal(mask[0], mask[1])


def test_thin_bands_fill_coarse_levels_as_documented():
    mask, shares = thin_bands((1024, 2048), 0.118), []
    for _ in range(5):
        mask = Topology(mask).coarse(1).mask
        shares.append(round(100 * float(mask.float().mean())))
    assert shares == [17, 27, 47, 79, 99]


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


def test_a_forced_selection_leaves_padding_out():
    """W-Net asks for sides that 8 divides: HRF's 1366 rows become 1368."""
    model = build_refine(segmentor=segmentor_cfg(data_preprocessor=PREPROCESSOR | dict(
        size=None, test_cfg=dict(size_divisor=32))))
    row, = benchmark({'refined': model}, size=(90, 100), densities=dict(refined=0.1),
                     iterations=1, warmup=1)
    assert row.density == pytest.approx(0.1)


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
    assert list(refined.stages) == [*STAGES, 'other'] and refined.stages['other'] > 0
    assert refined.density == pytest.approx(0.1, abs=1e-4)
    assert 0 < dense.milliseconds <= dense.p95
    assert min(dense.gmacs, refined.gmacs) > 0
    mask = thin_bands((96, 128), 0.1, batch_size=2)
    head = models['refined'].decode_head
    k, n = 5, int(mask.sum())
    pixels = head.extractor.macs(mask) + n * (
        8 * k + (2 * k + 2) * 64 + 64 * 2 + k * 64 + 64 * k)
    low = dense_macs(lambda: models['refined'].low_resolution(torch.zeros(2, 3, 96, 128)))
    assert refined.gmacs == pytest.approx((low + pixels) / 2 / 1e9, rel=1e-9)


def test_what_is_measured_goes_by_the_class():
    """A CRMRefiner has a selector, too, and is no segmentor; a selector alone refines nothing."""
    refiner = MODELS.build(refined_cfg()['refiner'] | dict(
        test_cfg=dict(selector=dict(type='mmsparse.EntropySelector', alpha=0.3))))
    assert isinstance(refiner.selector, nn.Module)
    with pytest.raises(TypeError, match='crm is a CRMRefiner, but only segmentors of mmseg'):
        benchmark({'crm': refiner}, size=(96, 128))
    dense = MODELS.build(ConfigDict(segmentor_cfg())).eval()
    with pytest.raises(ValueError, match=r"densities names \['dense'\]; .* SparseRefine are \[\]"):
        benchmark({'dense': dense}, size=(96, 128), densities=dict(dense=0.1))
    dense.selector = refiner.selector
    row, = benchmark({'dense': dense}, size=(96, 128), iterations=1, warmup=1)
    assert row.density is None and row.stages == {}


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


@pytest.mark.slow
def test_engines_compute_the_same():
    rows = compare_engines((8, 16, 24), thin_bands((96, 130), 0.2, batch_size=2),
                           ('sparse', 'dense', 'auto'), device=torch.device('cpu'), iterations=1)
    assert list(rows) == ['sparse', 'dense', 'auto'] and rows['sparse']['difference'] == 0
    assert all(row['ms'] > 0 and row['difference'] < 1e-5 for row in rows.values())
    assert rows['dense']['difference'] > 0, 'another way of computing rounds otherwise'


def test_the_rate_of_dense_convolutions_is_a_rate():
    assert 0.1 < dense_conv_rate(torch.device('cpu')) < 1e6


def test_modes():
    """`forward` is the head's own map, `paper` ends with the classes that `predict` finds."""
    model = MODELS.build(ConfigDict(segmentor_cfg())).eval()
    data, device = batch(model), torch.device('cpu')
    _, predicted = predict_time(model, data, device, 'predict')
    _, logits = predict_time(model, data, device, 'forward')
    _, classes = predict_time(model, data, device, 'paper')
    with torch.no_grad():
        assert torch.equal(logits, model(data['inputs'], mode='tensor'))
    assert logits.shape[2:] != data['inputs'].shape[2:]
    assert classes.dtype == torch.uint8 and classes.shape == (2, 96, 101)
    for sample, found in zip(predicted, classes, strict=True):
        assert torch.equal(sample.pred_sem_seg.data[0], found.long())
    with pytest.raises(ValueError, match="mode must be one of .*, got 'fast'"):
        benchmark({'a': model}, size=(96, 128), mode='fast')
    row, = benchmark({'a': model}, size=(96, 128), mode='paper', iterations=1, warmup=1)
    assert row.mode == 'paper' and row.stages == {}
