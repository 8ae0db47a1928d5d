"""EffSeg through mmdet's own tools: train, test, inferencer, visualizer, get_flops, benchmark."""
import json
from pathlib import Path

import cv2
import mmdet.datasets
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from tests.tools.in_process import run_tool

MMDET = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'analysis_tools'
CONFIG = """
_base_ = '{root}/configs/effseg/effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]),
    train_cfg=dict(rpn_proposal=dict(max_per_img=40)),
    test_cfg=dict(rpn=dict(max_per_img=40), rcnn=dict(score_thr=0.0, max_per_img=10)))
data_root = '{data}/'
resize = dict(type='Resize', scale=(128, 128), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize, dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(type='InfiniteSampler'),
    dataset=dict(data_root=data_root, ann_file='a.json', data_prefix=dict(img=''),
                 pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, ann_file='a.json', data_prefix=dict(img=''), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmsparse.BoundaryCocoMetric', ann_file=data_root + 'a.json',
                     metric=['bbox', 'segm', 'boundary'])
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1, val_interval=1)
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1), logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def work(tmp_path_factory, root):
    """Three pictures with ellipses, a config, and what one iteration of training leaves."""
    folder = tmp_path_factory.mktemp('detection')
    rng = np.random.default_rng(0)
    coco = dict(images=[], annotations=[], categories=[
        dict(id=i + 1, name=name) for i, name in enumerate(
            mmdet.datasets.CocoDataset.METAINFO['classes'])])
    for i in range(3):
        image = rng.integers(0, 80, (120, 160, 3), dtype=np.uint8)
        mask = cv2.ellipse(np.zeros((120, 160), np.uint8), (60 + 20 * i, 60), (40, 25), 20 * i, 0,
                           360, 1, -1)
        image[mask > 0] += 120
        cv2.imwrite(str(folder / f'{i}.png'), image)
        code = coco_mask.encode(np.asfortranarray(mask))
        outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
        coco['images'].append(dict(id=i, file_name=f'{i}.png', height=120, width=160))
        coco['annotations'].append(dict(
            id=i + 1, image_id=i, category_id=1, iscrowd=0, area=float(mask.sum()),
            bbox=coco_mask.toBbox(code).tolist(), segmentation=[outline.flatten().tolist()]))
    (folder / 'a.json').write_text(json.dumps(coco))
    (folder / 'small.py').write_text(CONFIG.format(root=root, data=folder))
    done = run_tool(root / 'tools' / 'train.py', 'small.py', '--work-dir', 'out', cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_training_reports_boxes_masks_and_boundaries(work):
    log = next((work / 'out').glob('*/*.log')).read_text()
    for key in ('loss_mask_seg_0', 'loss_mask_ref_3', 'coco/bbox_mAP', 'coco/segm_mAP',
                'coco/boundary_mAP'):
        assert key in log
    assert (work / 'out' / 'iter_1.pth').exists()


def test_testing_with_run_length_codes(work, root):
    done = run_tool(root / 'tools' / 'test.py', 'small.py', 'out/iter_1.pth', '--cfg-options',
                    'model.test_cfg.rcnn.encode_masks=True',
                    'test_evaluator.outfile_prefix=found', cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((work / 'found.segm.json').read_text())
    assert len(found) == 30 and found[0]['segmentation']['size'] == [120, 160]


@pytest.mark.slow
def test_multiply_accumulates(work):
    done = run_tool(MMDET / 'get_flops.py', 'small.py', '--num-images', '1', cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Flops' in done.stdout


@pytest.mark.gpu  # mmdet's benchmark asks CUDA for the time
def test_benchmark(work):
    done = run_tool(MMDET / 'benchmark.py', 'small.py', '--checkpoint', 'out/iter_1.pth',
                    '--task', 'inference', '--max-iter', '2', '--num-warmup', '1',
                    '--repeat-num', '1', '--work-dir', 'bench', cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'fps' in (done.stdout + done.stderr).lower()


def test_inferencer_and_visualizer(work, mmengine_allowed):
    from mmdet.apis import DetInferencer
    inferencer = DetInferencer(str(work / 'small.py'), str(work / 'out' / 'iter_1.pth'), 'cpu')
    with torch.no_grad():
        found = inferencer(str(work / '0.png'), out_dir=str(work / 'seen'), pred_score_thr=0.0,
                           no_save_pred=False)
    prediction = found['predictions'][0]
    assert len(prediction['masks']) == len(prediction['scores']) == 10
    assert (work / 'seen' / 'vis' / '0.png').stat().st_size > 1000
