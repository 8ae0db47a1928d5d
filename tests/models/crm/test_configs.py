"""Every CRM config builds, trains a step or predicts; the recipe is the paper's."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

FOLDER = Path(__file__).parents[3] / 'configs' / 'crm'
REFINERS = sorted(p.stem for p in FOLDER.glob('crm_*.py'))
WRAPPERS = sorted(p.stem for p in FOLDER.glob('refined_*.py'))
PAPER = 'crm_r50_2xb6-45k_saliency-224x224'


def load(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    for part in ('segmentor', 'detector', 'refiner'):
        cfg.model.pop(f'{part}_checkpoint', None)
    if 'backbone' in cfg.model:
        cfg.model.backbone.init_cfg = None
    else:
        (cfg.model.get('segmentor') or cfg.model.detector).backbone.init_cfg = None
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('name', REFINERS)
def test_refiners_train_and_refine(name):
    cfg = load(name)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    sample = SegDataSample(metainfo=dict(ori_shape=(64, 80), img_shape=(64, 80)))
    mask = torch.zeros(1, 64, 80)
    mask[:, 10:50, 20:60] = 1
    sample.gt_mask, sample.coarse_mask = PixelData(data=mask), PixelData(data=mask.roll(3, 1))
    image = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    data = dict(inputs=[image] * 2, data_samples=[sample.clone(), sample.clone()])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = [p.clone() for p in model.parameters()]
    losses = model.train_step(data, wrapper)
    assert set(losses) == {'loss', 'loss_bce', 'loss_l1', 'loss_l2', 'loss_sobel'}
    assert all(v.isfinite() for v in losses.values())
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.eval()
    out = model.test_step(dict(inputs=[image], data_samples=[sample]))[0]
    assert out.refined_mask.data.shape == (1, 64, 80)


def test_the_recipe():
    cfg = load(PAPER)
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == 9_300_961
    assert model.loss_weights == dict(bce=1.0, l1=0.5, l2=0.5, sobel=2.0)
    assert tuple(model.test_cfg.scales) == (0.125, 0.25, 0.5, 1.0) and model.test_cfg.pad == 32
    assert model.selector is None
    group, = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert (group['lr'], group['weight_decay'], len(group['params'])) == (
        2.25e-4, 1e-4, len(list(model.parameters())))
    assert cfg.train_dataloader.batch_size * 2 == 12 and cfg.train_cfg.max_iters == 15 * 3047


@pytest.mark.parametrize(('name', 'sizes', 'runs'), [
    (PAPER, [(1600, 2048), (2048, 1600)], 4),  # the smallest of BIG
    (f'{PAPER}_relabelled-voc', [(375, 500), (281, 500), (112, 112), (20, 30)], 4),
    (PAPER, [(375, 500)], 2)])
def test_which_scales_run(name, sizes, runs, monkeypatch):
    """All four on the pictures of either test set, as released, however small the mask is."""
    model, seen = MODELS.build(load(name).model).eval(), []

    def refine_scale(images, p, size, selected):
        seen.append(size)
        return p, 1.0

    monkeypatch.setattr(model, 'refine_scale', refine_scale)
    for height, width in sizes:
        mask = torch.zeros(1, height, width)
        mask[:, 0, :width // 4] = 1  # less than the 1,024 pixels that are refined by default
        seen.clear()
        model.refine(torch.zeros(1, 3, height, width, dtype=torch.uint8), mask)
        assert seen == [tuple(round((n + 64) * scale) for n in (height, width))
                        for scale in (0.125, 0.25, 0.5, 1.0)[-runs:]]


def test_the_sparse_config_has_the_papers_weights():
    dense, sparse = (MODELS.build(load(name).model) for name in (
        PAPER, 'crm_r50-sparse_2xb6-45k_saliency-224x224'))
    sparse.load_state_dict(dense.state_dict())
    assert type(sparse.selector).__name__ == 'BoundarySelector'


@pytest.mark.parametrize('name', [n for n in WRAPPERS if 'rcnn' not in n])
def test_segmentors_of_ade20k(name):
    torch.manual_seed(0)
    model = MODELS.build(load(name).model).eval()
    image = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    size = dict(ori_shape=(192, 240), img_shape=(128, 160), pad_shape=(128, 160))
    sample = SegDataSample(metainfo=size | dict(
        ori_img=np.random.default_rng(1).integers(0, 256, (192, 240, 3), dtype=np.uint8)))
    with torch.no_grad():
        out, = model.test_step(dict(
            inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[sample]))
    assert out.pred_sem_seg.data.shape == out.coarse_sem_seg.data.shape == (1, 192, 240)
    assert model.num_classes == 150 and len(model.class_policy.stuff_classes) == 35
    assert load(name).test_evaluator[1].classes == 150


def test_mask_rcnn():
    torch.manual_seed(0)
    cfg = load('refined_mask-rcnn-r50_coco')
    cfg.model.detector.test_cfg.rcnn.update(score_thr=0.0, max_per_img=2)
    cfg.model.refiner.test_cfg = dict(scales=(0.5, 1.0))
    model = MODELS.build(cfg.model).eval()
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    sample = DetDataSample(metainfo=dict(
        ori_shape=(96, 128), img_shape=(96, 128), scale_factor=(1.0, 1.0), ori_img=image))
    with torch.no_grad():
        out, = model.test_step(dict(
            inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[sample]))
    assert out.pred_instances.masks.shape == (2, 96, 128)
