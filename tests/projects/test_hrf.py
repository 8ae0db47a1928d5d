"""The HRF study on made pictures: its preparation, a step of its refiner, a result."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from mmseg.utils import register_all_modules

from mmsparse.engine.config import read_config
from tests.tools.in_process import run_tool

REFINER = 'configs/sparserefine/sparserefine-s_wnet_1xb4-2k_hrf-1366x2048.py'
LOW, HIGH, SIZE = (40, 56), (96, 136), (192, 272)


@pytest.fixture
def folder(root, tmp_path, monkeypatch):
    """Photographs of number 6 with a bright strip, labeled 2, and a dark one, 1; a W-Net."""
    for kind in ('h', 'g', 'dr'):
        image = np.random.default_rng(0).integers(0, 60, (*SIZE, 3), np.uint8)
        label = np.zeros(SIZE, np.uint8)
        image[60:88], label[60:88], label[100:110] = 200, 2, 1
        label[:, -10:] = 255
        for name, picture in ((f'images/06_{kind}.jpg', image), (f'labels/06_{kind}.png', label)):
            path = tmp_path / 'hrf' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    low = MODELS.build(Config.fromfile(root / 'configs/wnet/wnet_hrf-1024x1104.py').model)
    torch.save(dict(state_dict=low.state_dict()), tmp_path / 'wnet.pth')
    return tmp_path


def test_prepare_learn_and_predict(root, folder):
    (folder / 'small.py').write_text(
        f"_base_ = '{root / REFINER}'\nmodel = dict("
        f"low_res_size={LOW}, segmentor_checkpoint='{folder / 'wnet.pth'}', decode_head=dict("
        "init_cfg=dict(type='Pretrained', checkpoint='mmsparse://sparserefine-s_wnet_hrf', "
        "prefix='decode_head.')))\n"
        f'_base_.test_pipeline[1].scale = {HIGH[::-1]}\n'
        'val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))\n')
    done = run_tool(root / 'projects/hrf/prepare.py', folder / 'small.py', '--out',
                    folder / 'prepared', '--name', 'scores', '--numbers', '6', cwd=root)
    assert done.returncode == 0, done.stderr
    cfg = Config.fromfile(folder / 'small.py')
    for part in ('images', 'labels'):
        assert cv2.imread(str(folder / f'prepared/{part}/06_g.bmp')).shape == (*HIGH, 3)
    cfg.model.selector.update(alpha=0.0, max_density=0.5)
    del cfg.model.decode_head.init_cfg  # for the tool, which lets mmengine read such names
    model = MODELS.build(cfg.model)
    model.init_weights()
    dataset = cfg.train_dataloader.dataset
    dataset.update(data_root=str(folder / 'prepared'), numbers=(6,))
    for step in dataset.pipeline:
        if step.type == 'mmsparse.LoadLowResLogits':
            step.logits_root = str(folder / 'prepared' / 'scores')
        if step.type == 'RandomCrop':
            step.crop_size = (64, 64)
    data = DATASETS.build(dataset)
    assert len(data) == 3
    inputs = model.data_preprocessor(pseudo_collate([data[0], data[1]]), True)
    losses = model(**inputs, mode='loss')
    assert all(v.isfinite() for v in losses.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad is not None for p in model.decode_head.parameters())
    # stored scores are those that the model computes, to half precision
    clean = DATASETS.build(dict(cfg.val_dataloader.dataset, numbers=(6,)))[0]
    model.eval()
    batch = model.data_preprocessor(pseudo_collate([clean]), False)
    stored = np.load(folder / 'prepared' / 'scores' / '06_dr.npy')
    scores = model.low_resolution(batch['inputs']).full()[0]
    assert stored.shape == (3, *HIGH)
    torch.testing.assert_close(torch.from_numpy(stored).float(), scores, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        sample, = model.test_step(pseudo_collate([clean]))
    assert sample.pred_sem_seg.shape == SIZE and 0.4 < sample.selected.data.float().mean() < 0.51


def prepared(folder):
    """What prepare.py writes, of two pictures."""
    for kind in ('h', 'g'):
        for part, suffix in (('images', 'jpg'), ('labels', 'png')):
            picture = cv2.imread(str(folder / f'hrf/{part}/06_{kind}.{suffix}'), -1)
            (folder / 'prepared' / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'prepared/{part}/06_{kind}.bmp'), picture)


@pytest.mark.parametrize('name', [
    'wnet_1xb4-1500_hrf-1366x2048', 'wnet_1xb4-2k_hrf-576x864',
    pytest.param('swiftnet-ss_mnv2_1xb4-1500_hrf-1366x2048', marks=pytest.mark.slow)])
def test_peers_learn_and_predict(root, folder, name):
    cfg = read_config(root / f'projects/hrf/configs/{name}.py')
    prepared(folder)
    learn, score = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    learn.update(data_root=str(folder / 'prepared'), numbers=(6,))
    for step in (*learn.pipeline, *score.pipeline):
        if step.type == 'RandomCrop':
            step.crop_size = (96, 96)
        if 'scale' in step:
            step.scale = SIZE[::-1]
    if 'init_cfg' in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    data = DATASETS.build(learn)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = model.train_step(pseudo_collate([data[0], data[1]]),
                              build_optim_wrapper(model, cfg.optim_wrapper))
    assert all(v.isfinite() for v in losses.values())
    same = [n for n, p in model.named_parameters() if p.equal(before[n])]
    assert not same, same
    item = DATASETS.build(dict(score, numbers=(6,)))[0]
    with torch.no_grad():
        sample, = model.eval().test_step(pseudo_collate([item]))
    assert sample.pred_sem_seg.shape == SIZE


@pytest.mark.parametrize(('name', 'scores', 'scale'), [
    ('sparserefine-s_wnet-576_1xb4-1500_hrf-1366x2048', 'hrf-2048/wnet-576', (2048, 1366)),
    ('sparserefine-s_wnet-flips_1xb2-500_hrf-2336x3504', 'hrf-3504/wnet-1024-flips', (3504, 2336)),
    ('sparserefine-s_wnet-flips-tta_hrf-1366x2048', 'hrf-2048/wnet-1024-flips', (2048, 1366))])
def test_refiners_learn_from_what_the_study_prepares(root, name, scores, scale):
    cfg = read_config(root / f'projects/hrf/configs/{name}.py')
    init_default_scope(cfg.default_scope)
    MODELS.build(cfg.model)
    dataset = cfg.train_dataloader.dataset
    where, = (step.logits_root for step in dataset.pipeline if 'logits_root' in step)
    assert where == f'work_dirs/{scores}' and where.startswith(f'{dataset.data_root}/')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert [tuple(s.scale) for s in loader.dataset.pipeline if 'scale' in s] == [scale]
    if 'tta_pipeline' in cfg:
        assert tuple(cfg.tta_pipeline[1].transforms[0][0].scale) == scale


@pytest.fixture
def refined(root, folder):
    """A config and a checkpoint of a refiner from random weights, of small pictures."""
    (folder / 'refined.py').write_text(
        f"_base_ = '{root / REFINER}'\n_base_.test_pipeline[1].scale = {HIGH[::-1]}\n"
        'test_dataloader = dict(dataset=dict(numbers=(6,), pipeline=_base_.test_pipeline))\n'
        "model = dict(segmentor_checkpoint=None, "
        f"low_res_size={LOW}, selector=dict(max_density=0.5))\n")
    model = MODELS.build(read_config(folder / 'refined.py').model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'refined.pth')
    return folder / 'refined.py', folder / 'refined.pth'


def test_front(root, folder, refined):
    """Both kinds of models are scored and timed on the same photographs, and drawn."""
    (folder / 'dense.py').write_text(
        f"_base_ = '{root / 'configs/wnet/wnet_hrf-1024x1104.py'}'\n"
        'test_dataloader = val_dataloader = dict(dataset=dict(numbers=(6,)))\n')
    done = run_tool(
        root / 'projects/hrf/front.py', '='.join(map(str, refined)), '--dense',
        f'{folder}/dense.py={folder}/wnet.pth', '--heights', '32', '64', '--passes', '1',
        '--peers', f'{folder}/dense.py={folder}/wnet.pth',
        '--backend', 'torch', '--dtype', 'float32', '--out', folder / 'front.png', cwd=root)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(folder / 'front.png')) is not None
    rows = json.loads((folder / 'front.json').read_text())['rows']
    assert list(rows) == ['32', '64', 'dense', 'refined']
    assert all(0 < row['mIoU'] < 100 and row['seconds'] > 0 and 'peak_mib' in row
               for row in rows.values())


def test_front_takes_no_two_models_of_one_name(root, folder, refined):
    name = '='.join(map(str, refined))
    done = run_tool(
        root / 'projects/hrf/front.py', name, name, '--out', folder / 'front.png', cwd=root)
    assert done.returncode and 'refined, refined: what a model is called' in done.stderr


def test_offsets(root, refined):
    done = run_tool(root / 'projects/hrf/offsets.py', *refined, cwd=root)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split('│')[1:-1]]
            for line in done.stdout.splitlines() if line.startswith('│')]
    assert [row[0] for row in rows] == ['-0.6', '-0.4', '-0.2', '0', '0.2', '0.4']
    recalls = [float(row[3]) for row in rows]  # less background, more vessels
    assert sorted(recalls, reverse=True) == recalls and len(set(recalls)) > 1
