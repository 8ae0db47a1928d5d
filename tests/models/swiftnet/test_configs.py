"""Every SwiftNet config builds, trains a step and predicts; the recipe is the paper's."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmsparse.models.swiftnet import SegEnsemble
from tests.models.swiftnet.builders import (
    FOLDER,
    PYR3,
    R18,
    SIZE,
    batch,
    build,
    load,
    without_weights,
)

CONFIGS = sorted(p.stem for p in FOLDER.glob('*.py'))
TRAINED = [name for name in CONFIGS if '-ens-' not in name]


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_builds(name):
    """And gives its logits at a quarter of the size, rounded up; without memory."""
    cfg = load(name)
    with torch.device('meta'):
        model = build(cfg).eval()
        for part in model.segmentors if '-ens-' in name else [model]:
            logits = part(torch.empty(2, 3, 96, 132))
            assert logits.shape == (2, 11 if 'camvid' in name else 19, 24, 33)


# A single scale and pyramids, both encoders, each way of rounding and each place of the taps.
SMALLEST = {R18, PYR3, *(f'swiftnet-{name}_1xb14-53k_cityscapes-768x768' for name in (
    'ss-cvpr_r18', 'pyr2_mnv2', 'pyr3-2020_r18'))}


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in TRAINED])
def test_every_config_trains_a_step_and_predicts(name):
    model = build(load(name))
    size = (96, 132) if 'pyr3-2020' in name else SIZE  # levels are rounded down there
    data = batch(model, weights='pyr' in name, size=size)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert loss.isfinite() and not missing
    model.eval()
    with torch.no_grad():
        result, _ = model(**batch(model, size=size), mode='predict')
    assert result.pred_sem_seg.shape == size and result.seg_logits.shape == size


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - set(TRAINED)))
@torch.no_grad()
def test_an_ensemble_averages_probabilities(name):
    model = build(load(name)).eval()
    inputs = batch(model)
    logits = [m.inference(inputs['inputs'], [s.metainfo for s in inputs['data_samples']])
              for m in model.segmentors]
    expected = sum(x.softmax(1) for x in logits) / len(logits)
    result, _ = model(**inputs, mode='predict')
    torch.testing.assert_close(result.seg_logits.data.softmax(0), expected[0])
    best = expected[0].topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert clear.float().mean() > 0.95
    assert torch.equal(result.pred_sem_seg.data[0][clear], expected[0].argmax(0)[clear])
    with pytest.raises(NotImplementedError, match='each of its segmentors by its own config'):
        model(**inputs, mode='loss')


@torch.no_grad()
def test_an_ensemble_of_a_model_with_itself_is_the_model():
    cfg = without_weights(load(R18).model)
    alone = build(load(R18)).eval()
    both = SegEnsemble(segmentors=[cfg, cfg]).eval()
    for member in both.segmentors:
        member.load_state_dict(alone.state_dict(), strict=False)
    inputs = batch(alone)
    expected, _ = alone(**inputs, mode='predict')
    found, _ = both(**batch(both), mode='predict')
    probability = expected.seg_logits.data.softmax(0)
    torch.testing.assert_close(found.seg_logits.data.softmax(0), probability)
    best = probability.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert clear.float().mean() > 0.95
    assert torch.equal(found.pred_sem_seg.data[0][clear], expected.pred_sem_seg.data[0][clear])


def test_members_load_their_own_weights(tmp_path):
    """What `tools/test.py` does without a checkpoint."""
    cfg = without_weights(load(R18).model)
    members, trained = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        trained.append(build(load(R18)).state_dict())
        for value in trained[-1].values():
            if value.is_floating_point():
                value.normal_()
        torch.save(dict(state_dict=trained[-1]), tmp_path / f'{seed}.pth')
        members.append(dict(cfg, init_cfg=dict(
            type='Pretrained', checkpoint=str(tmp_path / f'{seed}.pth'))))
    model = SegEnsemble(segmentors=members)
    model.init_weights()
    for member, expected in zip(model.segmentors, trained, strict=True):
        for name, value in member.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_an_ensemble_refuses_what_does_not_match():
    init_default_scope('mmseg')
    cfg = without_weights(load(R18).model)
    other = cfg.copy()
    other['data_preprocessor'] = dict(cfg.data_preprocessor, mean=[0, 0, 0])
    fewer = cfg.copy()
    fewer['decode_head'] = dict(cfg.decode_head, num_classes=3)
    for members, message in (([], 'at least one'),
                             ([cfg, other], r'segmentors\[1\].data_preprocessor.mean is \[0, 0, 0'),
                             ([cfg, fewer], r'channels, got \[19, 3\]')):
        with pytest.raises(ValueError, match=message):
            SegEnsemble(segmentors=members)


def test_the_recipe():
    cfg = load(R18)
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {(g['lr'], g['weight_decay']): 0 for g in optimizer.param_groups}
    for group in optimizer.param_groups:
        groups[group['lr'], group['weight_decay']] += sum(p.numel() for p in group['params'])
    assert groups == {(1e-4, 2.5e-5): 11_176_512, (4e-4, 1e-4): 620_559}
    assert optimizer.defaults['betas'] == (0.9, 0.99) and type(optimizer) is torch.optim.Adam
    assert cfg.train_dataloader.batch_size == 14 and cfg.train_cfg.max_iters == 250 * (2975 // 14)
    assert cfg.param_scheduler[0].eta_min == 1e-6
    scratch = build_optim_wrapper(model, load(R18.replace('ss_', 'ss-scratch_')).optim_wrapper)
    assert {g['lr'] for g in scratch.optimizer.param_groups} == {4e-4}


def test_partly_pretrained_models_learn_by_part():
    cfg = load(R18.replace('ss_', 'ss-pretrained-rb2_'))
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): n for n, p in model.named_parameters()}
    slow = {names[id(p)] for g in optimizer.param_groups if g['lr'] == 1e-4 for p in g['params']}
    parts = ('backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2')
    assert slow == {n for n in names.values() if n.startswith(parts)}


@pytest.mark.parametrize(('name', 'size'), [
    (R18, (64, 66)), pytest.param(R18, SIZE, marks=pytest.mark.slow),
    pytest.param(PYR3, SIZE, marks=pytest.mark.slow)])
def test_two_images_are_learned_by_heart(name, size):
    model = build(load(name)).train()
    data = batch(model, size=size)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss, log = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.25 * losses[0] and log['decode.acc_seg'] > 90


@pytest.mark.parametrize('name', [R18, PYR3])
@torch.no_grad()
def test_channels_last_and_autocast(name):
    model = build(load(name)).eval()
    x = torch.randn(2, 3, *SIZE)
    plain = model(x)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)), plain, atol=1e-4, rtol=1e-3)
    with torch.autocast('cpu', torch.bfloat16):
        half = model(x)
    assert (half.float() - plain).norm() < 0.05 * plain.norm()


@pytest.mark.slow
@pytest.mark.parametrize('name', [R18, PYR3])
@torch.no_grad()
def test_compiled_equals_eager(name):
    model = build(load(name)).eval()
    x = torch.randn(1, 3, *SIZE)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-3)


def test_no_training_moves_labels_by_resizing_them_with_opencv():
    for name in TRAINED:
        kinds = [step['type'] for step in load(name).train_dataloader.dataset.pipeline]
        assert 'mmsparse.RandomSquareCropAndScale' in kinds, name
        assert not {'Resize', 'RandomResize'} & set(kinds), name
