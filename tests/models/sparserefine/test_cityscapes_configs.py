"""The five baselines of the paper: configs by inheritance, at real widths on small images."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from mmsparse.engine.fusion import fuse_for_inference
from tests.models.without_memory import without_memory

FOLDER = Path(__file__).parents[3] / 'configs' / 'sparserefine'
# low-resolution size, alpha, stages: supplement Table 1
PAPER = {
    'fcn-hr48': ('4xb2-80k', (512, 1024), 0.3, 6),
    'segformer-mit-b5': ('8xb1-160k', (512, 1024), 0.1, 6),
    'mask2former-swin-t': ('8xb2-90k', (512, 1024), 0.05, 5),
    'mask2former-swin-l': ('8xb2-90k', (512, 1024), 0.005, 6),
    'segnext-mscan-l': ('8xb1-160k', (640, 1280), 0.1, 6),
}
SIZE = (128, 256)
# Batch norms that no convolution precedes: one before each of the two halves of MSCAN's 38 blocks.
STAND_ALONE_NORMS = {'segnext-mscan-l': 2 * (3 + 5 + 27 + 3)}
BASELINES = pytest.mark.parametrize('name', PAPER)


def low_config(name):
    schedule, (height, width), *_ = PAPER[name]
    return Config.fromfile(FOLDER / f'{name}_{schedule}_cityscapes-{height}x{width}.py')


def dense_config(name):
    return Config.fromfile(FOLDER / f'{name}_{PAPER[name][0]}_cityscapes-1024x2048.py')


def refine_config(name):
    return Config.fromfile(FOLDER / f'sparserefine_{name}_8xb4-46k_cityscapes-1024x2048.py')


def build(cfg):
    """The model without pretrained weights: nothing is fetched."""
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def samples(count=1):
    images, data_samples = [], []
    for _ in range(count):
        images.append(torch.randint(256, (3, *SIZE), dtype=torch.uint8))
        sample = SegDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE))
        labels = torch.randint(19, (1, 4, 8)).repeat_interleave(32, 1).repeat_interleave(32, 2)
        labels[:, :3] = 255
        sample.gt_sem_seg = PixelData(data=labels)
        data_samples.append(sample)
    return dict(inputs=images, data_samples=data_samples)


@BASELINES
def test_the_config_is_the_papers(name):
    cfg, (_, size, alpha, stages) = refine_config(name), PAPER[name]
    assert cfg.model.selector.alpha == alpha
    assert len(cfg.model.decode_head.extractor.channels) == stages
    low = cfg.model.get('low_res_size') or tuple(
        int(n * cfg.model.low_res_scale) for n in (1024, 2048))
    assert tuple(low) == size
    assert cfg.train_dataloader.batch_size == 4 and cfg.train_cfg.max_iters == 500 * 93
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05))
    steps = [t['type'] for t in cfg.train_dataloader.dataset.pipeline]
    assert steps == ['LoadImageFromFile', 'LoadAnnotations', 'RandomResize', 'RandomCrop',
                     'RandomFlip', 'PhotoMetricDistortion', 'PackSegInputs']
    assert cfg.model.segmentor_checkpoint.startswith(
        f'work_dirs/{Path(low_config(name).filename).stem}/')


KNOBS = sorted(f.name for f in FOLDER.glob('sparserefine_*.py')
               if '# What you may want to change' in f.read_text())


@pytest.mark.parametrize('name', [
    pytest.param(n, marks=() if 'segnext' in n or 'camvid' in n or 'isic' in n else
                 pytest.mark.slow) for n in KNOBS])
def test_what_a_user_changes_on_top_reaches_the_model(name, tmp_path):
    text = (FOLDER / name).read_text()
    for old, new in (("'./", f"'{FOLDER}/"), ("'../", f"'{FOLDER.parent}/"),
                     (r'^alpha = \S+', 'alpha = 0.123'), (r'^stages = \(.*\)', 'stages = (3, 5)'),
                     (r"^segmentor_checkpoint = '.*'", "segmentor_checkpoint = 'mine.pth'"),
                     (r'^low_res_scale = \S+', 'low_res_scale = 0.25'),
                     (r'^low_res_size = \(.*\)', 'low_res_size = (7, 9)')):
        text = re.sub(old, new, text, flags=re.M)
    (tmp_path / 'mine.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.selector.alpha == 0.123
    assert cfg.model.decode_head.extractor.channels == (3, 5)
    assert cfg.model.segmentor_checkpoint == 'mine.pth'
    size = dict(low_res_size=(7, 9)) if 'segnext' in name else dict(low_res_scale=0.25)
    assert {k: v for k, v in cfg.model.items() if k.startswith('low_res')} == size


def test_every_config_of_its_own_has_what_a_user_changes_on_top():
    """Those that inherit a whole refiner change it by its keys."""
    for file in FOLDER.glob('sparserefine_*.py'):
        assert ('_base_.sparserefine' in file.read_text()) == (file.name in KNOBS)


@BASELINES
def test_low_resolution_and_dense_are_the_same_network(name):
    low, dense, refine = low_config(name), dense_config(name), refine_config(name)
    for part in ('backbone', 'decode_head'):
        assert low.model[part] == dense.model[part] == refine.model.segmentor[part]
    assert low.optim_wrapper == dense.optim_wrapper and low.train_cfg == dense.train_cfg
    assert low.model.test_cfg == dense.model.test_cfg == dict(mode='whole')
    _, size, *_ = PAPER[name]
    resize, = (t for t in low.val_dataloader.dataset.pipeline if t.type == 'Resize')
    assert tuple(resize.scale) == size[::-1]
    crop, = (t for t in low.train_dataloader.dataset.pipeline if t.type == 'RandomCrop')
    assert tuple(crop.crop_size) == tuple(low.model.data_preprocessor.size)
    full, = (t for t in dense.train_dataloader.dataset.pipeline if t.type == 'RandomCrop')
    assert [a / b for a, b in zip(crop.crop_size, full.crop_size, strict=True)] == [
        size[0] / 1024] * 2


@BASELINES
def test_it_builds(name):
    """Without memory; test_inheritance.py trains and predicts on the smallest of each family."""
    cfg = refine_config(name)
    cfg.model.segmentor_checkpoint = None
    with without_memory():
        model = build(cfg)
    assert sum(p.numel() for p in model.decode_head.parameters()) == {
        5: 19_817_384, 6: 79_340_456}[PAPER[name][3]]
    assert model.num_classes == 19
    assert model.probabilities == name.startswith('mask2former')


@pytest.mark.slow
@BASELINES
def test_refines_and_trains(name):
    cfg = refine_config(name)
    cfg.model.data_preprocessor.size = SIZE
    if 'low_res_size' in cfg.model:
        cfg.model.low_res_size = tuple(n // 8 for n in cfg.model.low_res_size)
    cfg.model.segmentor_checkpoint = None
    cfg.model.selector.max_density = 0.1
    model = build(cfg)
    result, = model.eval().test_step(samples())
    assert result.pred_sem_seg.shape == SIZE and result.selected.data.any()
    assert 'seg_logits' not in result  # nothing dense that is thrown away
    data = model.data_preprocessor(samples(), False)
    with torch.no_grad():
        assert model.inference(data['inputs'], [{}]).isfinite().all()

    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    log = model.train().train_step(samples(2), optimizer)
    assert log['loss'].isfinite() and log['decode.loss_sparse_ce'] > 0
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == (not key.startswith('decode_head.')), key


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name == 'mask2former-swin-t' else pytest.mark.slow)
    for name in PAPER])
def test_low_resolution_baselines_train(name):
    cfg = low_config(name)
    cfg.model.data_preprocessor.update(size=SIZE, batch_augments=None)
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    log = model.train().train_step(samples(2), optimizer)
    assert log['loss'].isfinite() and log['loss'] > 0
    with torch.no_grad():
        result, = model.eval().test_step(samples())
    assert result.pred_sem_seg.shape == SIZE


@pytest.mark.parametrize('variant, changes', [
    ('mask2former-swin-t-6stage', dict(stages=6)),
    ('fcn-hr48_learnable-selector', dict(selector='LearnableSelector')),
    ('fcn-hr48_post-lr', dict(joint_aug='post_lr')),
    ('fcn-hr48_stored-lr', dict(joint_aug='post_lr')),
    ('fcn-hr48_released', dict(joint_aug='post_lr'))])
def test_variants(variant, changes):
    cfg = refine_config(variant)
    cfg.model.segmentor_checkpoint = None
    with without_memory():
        model = build(cfg)
    assert len(cfg.model.decode_head.extractor.channels) == changes.get('stages', 6)
    assert type(model.selector).__name__ == changes.get('selector', 'EntropySelector')
    assert model.joint_aug == changes.get('joint_aug', 'pre_lr')
    padding = cfg.model.decode_head.extractor.get('down_padding', 1)
    assert padding == (0 if 'joint_aug' in changes else 1)


def test_norms_and_biases_can_be_left_out_of_weight_decay():
    """As mmseg's configs do it; the paper's code decays every parameter."""
    cfg = refine_config('mask2former-swin-t')
    cfg.model.segmentor_checkpoint = None
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
    with without_memory():
        model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    names = dict(model.decode_head.named_parameters())
    free = {n for n, p in names.items() if decay[id(p)] == 0}
    assert free == {n for n in names if 'norm' in n or n.endswith('bias')}
    assert all(decay[id(p)] == 0.05 for n, p in names.items() if n not in free)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name == 'fcn-hr48' else pytest.mark.slow) for name in PAPER])
@torch.no_grad()
def test_fused_for_inference_predicts_the_same(name):
    """The low-resolution pass, with batch norms that do something."""
    # SegNeXt's decoder draws its bases in float32
    dtype, tolerance = (torch.float32, 1e-4) if 'segnext' in name else (torch.float64, 1e-9)
    model = build(refine_config(name)).eval()
    model.segmentor.to(dtype)
    norms = (m for m in model.segmentor.modules() if isinstance(m, _BatchNorm))
    for norm in norms:
        for tensor in (norm.running_mean, norm.bias):
            tensor.normal_(std=0.1)
        for tensor in (norm.running_var, norm.weight):
            tensor.uniform_(0.5, 1.5)
    inputs = torch.randn(2, 3, *SIZE, dtype=dtype)

    def logits():
        torch.manual_seed(0)  # SegNeXt's decoder starts from random bases
        return model.low_resolution(inputs).scores

    before = logits()
    assert fuse_for_inference(model) is model
    after = logits()
    assert (before - after).norm() < tolerance * before.norm()
    left = [m for m in model.segmentor.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(left) == STAND_ALONE_NORMS.get(name, 0)
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last)
               for m in model.segmentor.modules() if isinstance(m, torch.nn.Conv2d))
    assert not any(p.requires_grad for p in model.parameters())
