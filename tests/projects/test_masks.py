"""The study of mask heads: its configs build, learn a step and are scored, on made pictures."""
import importlib
import json
import re
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmsparse.engine.config import read_config
from tests.tools.in_process import run_tool

STUDY = 'projects/masks/configs'
HEADS = {'mask-rcnn-plus': 'QueryMaskHead', 'pointrend-plus': 'QueryPointHead',
         'refinemask-plus': 'QueryRefineMaskHead', 'effseg': 'EffSegMaskHead'}
DATA = {'carparts-320': 18, 'scenes-1024x2048': 4}
# of the detector, and of the heads after it
SCHEDULES = {'carparts-320': ('1xb4-2k', '1xb4-1k'), 'scenes-1024x2048': ('1xb2-1k', '1xb2-1k')}
SIZE = (128, 160)


def iterations(schedule):
    return int(schedule.partition('-')[2].replace('k', '000'))


def config(root, head, data):
    schedule = SCHEDULES[data][head in HEADS]
    cfg = read_config(str(root / STUDY / f'{head}_mnv2_{schedule}_{data}.py'))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    return cfg


def carparts(folder, classes):
    """Two pictures, and two polygons of a class on each."""
    for split in ('train', 'val'):
        (folder / 'carparts' / split).mkdir(parents=True)
        images, things = [], []
        for i in range(2):
            picture = np.random.default_rng(i).integers(0, 60, (*SIZE, 3), np.uint8)
            for x, label in ((10, 2 + i), (80, 19)):
                picture[30:90, x:x + 60] += 120
                things.append(dict(
                    id=len(things) + 1, image_id=i, category_id=label, iscrowd=False, area=3600,
                    bbox=[x, 30, 60, 60],
                    segmentation=[[x, 30, x + 60, 30, x + 60, 90, x, 90]]))
            cv2.imwrite(str(folder / 'carparts' / split / f'{i}.jpg'), picture)
            images.append(dict(id=i, file_name=f'{i}.jpg', width=SIZE[1], height=SIZE[0]))
        categories = [dict(id=i, name=name) for i, name in enumerate(
            ('_background_', *classes), start=1)]
        (folder / 'carparts' / f'{split}.json').write_text(json.dumps(
            dict(images=images, annotations=things, categories=categories)))


def test_names_are_unique(root):
    """mim looks a config up by its file name."""
    names = [path.name for folder in ('configs', 'projects') for path in root.glob(
        f'{folder}/**/*.py') if 'configs' in path.parts and '_base_' not in path.parts]
    assert len(names) == len(set(names))
    found = {path.stem for path in (root / STUDY).glob('*.py')}
    assert found == {f'{head}_mnv2_{SCHEDULES[data][head in HEADS]}_{data}'
                     for data in DATA for head in ('faster-rcnn', *HEADS)}


@pytest.mark.parametrize('data', DATA)
def test_all_heads_share_everything_but_the_head(root, data):
    configs = {head: config(root, head, data) for head in HEADS}
    rest = []
    for head, cfg in configs.items():
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        assert type(model.roi_head.mask_head).__name__ == HEADS[head]
        plain = cfg.to_dict()
        counts = re.findall(r"'num_classes': (\d+)", str(plain['model']['roi_head']))
        assert set(counts) == {str(DATA[data])}
        del plain['model']['roi_head']['mask_head'], plain['model']['roi_head'][
            'mask_roi_extractor']
        rest.append(plain)
    assert all(plain == rest[0] for plain in rest)
    cfg = configs['effseg']
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == iterations(SCHEDULES[data][1])
    flips = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomFlip']
    assert bool(flips) == (data == 'scenes-1024x2048')  # parts of cars know left from right


@pytest.mark.parametrize('data', DATA)
def test_heads_start_from_the_detector(root, data):
    """It has the weights of all but the mask head."""
    detector = config(root, 'faster-rcnn', data)
    last = iterations(SCHEDULES[data][0])
    assert detector.load_from is None
    assert detector.train_cfg.max_iters == detector.param_scheduler[-1].end == last
    folder = data.split('-')[0]
    for head in HEADS:
        cfg = config(root, head, data)
        assert cfg.load_from == f'work_dirs/masks/{folder}/faster-rcnn/iter_{last}.pth'
        with torch.device('meta'):
            starts, ends = (MODELS.build(c.model).state_dict() for c in (detector, cfg))
        assert {name for name in ends if 'mask_head' not in name} == set(starts)
        assert all(ends[name].shape == weight.shape for name, weight in starts.items())


@pytest.mark.parametrize('head, data', [
    ('effseg', 'carparts-320'), ('effseg', 'scenes-1024x2048'),
    *(pytest.param(head, data, marks=pytest.mark.slow) for head in HEADS for data in DATA
      if head != 'effseg')])
def test_a_step_and_a_score(root, tmp_path, monkeypatch, head, data):
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    cfg = config(root, head, data)
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    if data == 'carparts-320':
        carparts(tmp_path, train.metainfo.classes)
    for part in (train, val) if 'scenes' in data else ():
        part.update(length=2, size=(192, 256), min_area=100)
        for step in part.pipeline:
            if step.type == 'RandomCrop':
                step.crop_size = (160, 160)
    for part in (train, val):
        for step in part.pipeline:
            if step.type == 'RandomChoiceResize':
                step.scales = [(128, 128)]
            if step.type == 'Resize' and 'scale' in step:
                step.scale = (128, 128)
    model = MODELS.build(cfg.model)
    model.rpn_head.init_weights()
    model.roi_head.bbox_head.init_weights()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn = DATASETS.build(train)
    losses = model.train_step(pseudo_collate([learn[0], learn[1]]),
                              build_optim_wrapper(model, cfg.optim_wrapper))
    assert all(value.isfinite() for value in losses.values())
    mask = [name for name in before if 'mask_head' in name]
    changed = [name for name in mask if not model.get_parameter(name).equal(before[name])]
    assert len(changed) > 0.9 * len(mask)
    data = DATASETS.build(val)
    model.eval()
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    model.roi_head.test_cfg.update(score_thr=0.0, max_per_img=10)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = data.metainfo
    for i in range(2):
        batch = pseudo_collate([data[i]])
        with torch.no_grad():
            found = model.test_step(batch)
        assert len(found[0].pred_instances) == 10
        evaluator.process(found, batch)
    figures = evaluator.evaluate(2)
    assert all(0 <= figures[f'coco/{kind}_mAP'] <= 1 for kind in ('bbox', 'segm', 'boundary'))


def test_crops_hold_no_slivers(root):
    """Boxes without area have no finite offsets to learn."""
    cfg = config(root, 'mask-rcnn-plus', 'scenes-1024x2048').train_dataloader.dataset
    cfg.update(length=2, size=(192, 256), min_area=100)
    next(step for step in cfg.pipeline if step.type == 'RandomCrop').crop_size = (64, 64)
    np.random.seed(0)
    crops = DATASETS.build(cfg)
    boxes = torch.cat([crops[i % 2]['data_samples'].gt_instances.bboxes.tensor for i in range(60)])
    assert len(boxes) > 60 and (boxes[:, 2:] - boxes[:, :2]).min() > 4


def save_run(folder, cfg):
    """What a training leaves of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'iter_1.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))


@pytest.mark.slow
def test_table(root, tmp_path, monkeypatch):
    """Figures are those of the last validation or test; heads are timed on the annotated boxes."""
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    for head in HEADS:
        cfg = config(root, head, 'carparts-320')
        folder = tmp_path / 'runs' / 'carparts' / f'{head}-3'
        log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        kinds = ('bbox_mAP', 'segm_mAP', 'segm_mAP_75', 'boundary_mAP', 'boundary_mAP_m',
                 'boundary_mAP_l')
        log.write_text('\n'.join(json.dumps(line) for line in (
            {f'coco/{kind}': 0.9 for kind in kinds}, {'loss': 1.0},
            {f'coco/{kind}': 0.1 * i for i, kind in enumerate(kinds)})))
        save_run(folder, cfg)
    carparts(tmp_path, cfg.train_dataloader.dataset.metainfo.classes)
    arguments = ('carparts-320', '--work-dirs', tmp_path / 'runs', '--out', tmp_path / 'table.json')
    done = run_tool(root / 'projects/masks/table.py', *arguments, '--seeds', '3', cwd=root)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'table.json').read_text())['heads'].values()
    assert len(rows) == len(HEADS)
    for row in rows:
        assert list(row['seeds'][0].values()) == pytest.approx([0, 10, 20, 30, 40, 50])
        assert row['milliseconds'] > 0 and row['boxes'] == 2

    shutil.copytree(tmp_path / 'runs/carparts/effseg-3', tmp_path / 'runs/carparts/effseg-4')
    tested = tmp_path / 'runs/carparts/effseg-4/20260101_000001/20260101_000001.json'
    tested.parent.mkdir()
    tested.write_text(json.dumps({f'coco/{kind}': 0.5 for kind in kinds}))
    untimed = (*arguments, '--images', '0', '--seeds')
    done = run_tool(root / 'projects/masks/table.py', *untimed, '3', '4', cwd=root)
    assert done.returncode == 0, done.stderr
    assert 'mask-rcnn-plus-4: no validation was logged' in done.stdout
    heads = json.loads((tmp_path / 'table.json').read_text())['heads']
    assert list(heads) == ['EffSeg (112x112)']
    assert [run['mask AP'] for run in heads['EffSeg (112x112)']['seeds']] == [10, 50]
    done = run_tool(root / 'projects/masks/table.py', *untimed, '5', cwd=root)
    assert done.returncode == 1 and 'no head has been trained' in done.stderr


@pytest.mark.slow
def test_stages(root, tmp_path):
    """A row for each stage of each head; a share of what is wrong in each."""
    for head in ('effseg', 'refinemask-plus', 'mask-rcnn-plus'):
        save_run(tmp_path / 'scenes' / f'{head}-0', config(root, head, 'scenes-1024x2048'))
    done = run_tool(root / 'projects/masks/stages.py', 'scenes-1024x2048', '--work-dirs', tmp_path,
                    '--images', '1', '--runs', 'effseg-0', 'refinemask-plus-0', 'mask-rcnn-plus-0',
                    cwd=root)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r'(\d+)x\1 +\u2502 +([\d.]+) ', done.stdout)
    assert [int(grid) for grid, _ in rows] == [14, 28, 56, 112, 14, 28, 56, 112, 28]
    assert all(0 < float(wrong) < 100 for _, wrong in rows)


@pytest.mark.parametrize(('data', 'run', 'message'), [
    ('scenes-1024x2048', 'maskrcnn-0',
     '--runs maskrcnn-0: must begin with one of mask-rcnn-plus, pointrend-plus, refinemask-plus, '
     'effseg'),
    ('scenes', 'effseg-0', 'scenes: no name of a config in '),
])
def test_stages_of_an_unknown_run(root, data, run, message):
    done = run_tool(root / 'projects/masks/stages.py', data, '--runs', run, cwd=root)
    assert done.returncode == 1 and message in done.stderr


@pytest.fixture
def stages(root, monkeypatch):
    """The module of stages.py; neither it nor its neighbor stays among those imported."""
    monkeypatch.syspath_prepend(str(root / 'projects/masks'))
    module = importlib.import_module('stages')
    del sys.modules['stages'], sys.modules['table']
    return module


@pytest.mark.parametrize(('head', 'sizes'), [
    ('effseg', (14, 28, 56, 112)), ('refinemask-plus', (14, 28, 56, 112)),
    ('mask-rcnn-plus', (28,))])
@torch.no_grad()
def test_the_mask_after_the_last_stage_is_the_models(root, stages, head, sizes):
    model = MODELS.build(config(root, head, 'scenes-1024x2048').model).eval()
    x = model.extract_feat(torch.randn(1, 3, 160, 224))
    rois = torch.tensor([[0, 10, 20, 90, 130], [0, 100, 3, 180, 60.]])
    labels = torch.tensor([1, 3])
    masks = stages.masks_by_stage(model.roi_head, x, rois, labels)
    assert [mask.shape for mask in masks] == [(2, 1, size, size) for size in sizes]
    torch.testing.assert_close(masks[-1], model.roi_head.mask_logits(x, rois, labels))


def test_cells_near_outlines_are_counted_as_by_loops(stages, monkeypatch):
    """Two objects on their boxes of 112 and 224 pixels, so that cells are whole pixels."""
    rows, columns = np.mgrid[:224, :256]
    masks = [np.hypot(rows - 60, columns - 70) < 40, np.hypot(rows - 100, columns - 120) < 90]
    boxes = [(16, 8, 128, 120), (16, 0, 240, 224)]  # x, y
    rng = np.random.default_rng(0)
    noise = {grid: rng.normal(size=(2, 1, grid, grid)) for grid in (28, 112)}
    monkeypatch.setattr(stages, 'masks_by_stage', lambda *_: [
        torch.from_numpy(logits) for logits in noise.values()])
    model = SimpleNamespace(
        extract_feat=lambda x: x, data_preprocessor=lambda *_: dict(inputs=None), roi_head=None)
    sample = dict(data_samples=DetDataSample(gt_instances=InstanceData(
        bboxes=HorizontalBoxes(torch.tensor(boxes).float()), labels=torch.zeros(2).long(),
        masks=BitmapMasks(np.stack(masks).astype(np.uint8), *masks[0].shape))))
    found = stages.count(dict(run=model), sample)

    expected = {grid: np.zeros((2, 2), int) for grid in noise}
    for i, (mask, (x1, y1, x2, _)) in enumerate(zip(masks, boxes, strict=True)):
        step = (x2 - x1) // 112
        inside = np.zeros((118, 118), bool)  # three cells of background around
        for y, x in np.ndindex(112, 112):
            cell = mask[y1 + y * step:y1 + (y + 1) * step, x1 + x * step:x1 + (x + 1) * step]
            inside[3 + y, 3 + x] = cell.mean() > 0.5
        for grid, logits in noise.items():
            for y, x in np.ndindex(112, 112):
                around = inside[y:y + 7, x:x + 7]
                if around.all() or not around.any():
                    continue
                at = [min(max((n + 0.5) * grid / 112 - 0.5, 0), grid - 1) for n in (y, x)]
                value = sum(
                    (1 - abs(at[0] - a)) * (1 - abs(at[1] - b)) * logits[i, 0, a, b]
                    for a in range(grid) if abs(at[0] - a) < 1
                    for b in range(grid) if abs(at[1] - b) < 1)
                wrong = (value > 0) != inside[3 + y, 3 + x]
                expected[grid][0] += wrong, 1
                expected[grid][1] += np.array((wrong, 1)) * (mask.sum() > 96 ** 2)
    assert {grid: figures.tolist() for (_, grid), figures in found.items()} == {
        grid: figures.tolist() for grid, figures in expected.items()}
    assert 0 < expected[28][1, 0] < expected[28][1, 1] < expected[28][0, 1]
