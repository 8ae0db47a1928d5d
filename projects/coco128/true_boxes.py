r"""Masks in true boxes: what a mask head alone is worth, whatever its detector finds.

    python projects/coco128/true_boxes.py CONFIG CHECKPOINT

Mask AP and boundary AP (mmsparse.BoundaryCocoMetric) of the masks that the model gives the boxes of
the annotations, with scores of 1 times eq. (3). Of EffSeg also with its last stages left out.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import InstanceData
from mmdet.registry import MODELS

from mmsparse.engine.config import read_config
from mmsparse.models.effseg import EffSegMaskHead
from mmsparse.models.effseg.mask_head import compose


def keep_stages(head: EffSegMaskHead, count: int) -> None:
    """Let the head say only what its first stages do."""
    def forward(feats, roi_feats, rois, queries, labels=None):
        return compose(head.look(feats, roi_feats, rois, queries, training=False)[:count],
                       len(rois))
    head.forward = forward


@torch.no_grad()
def main() -> None:
    """Print one line for each number of stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    args = parser.parse_args()
    cfg = read_config(args.config)
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    load_checkpoint(model, args.checkpoint, 'cpu')
    loader = Runner.build_dataloader(cfg.test_dataloader)
    head, rows = model.roi_head.mask_head, {}
    for stages in (1, 2, 3, 4) if isinstance(head, EffSegMaskHead) else (None,):
        if stages:
            keep_stages(head, stages)
        evaluator = Evaluator([dict(cfg.test_evaluator, metric=['segm', 'boundary'])])
        evaluator.dataset_meta = loader.dataset.metainfo
        for data in loader:
            data = model.data_preprocessor(data, False)
            samples, found = data['data_samples'], []
            for sample in samples:
                truth = sample.gt_instances
                found.append(InstanceData(
                    bboxes=torch.as_tensor(truth.bboxes), labels=truth.labels,
                    scores=torch.ones(len(truth))))
            found = model.roi_head.predict_mask(
                model.extract_feat(data['inputs']), [s.metainfo for s in samples], found,
                rescale=True)
            for sample, result in zip(samples, found, strict=True):
                sample.pred_instances = result
            evaluator.process(samples, data)
        figures = evaluator.evaluate(len(loader.dataset))
        rows[str(stages or 'all')] = {
            key: 100 * figures[f'coco/{key}'] for key in (
                'segm_mAP', 'segm_mAP_75', 'boundary_mAP', 'boundary_mAP_50')}
        print(stages or '', ', '.join(f'{k} {v:.1f}' for k, v in rows[str(stages or 'all')].items()))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + '\n')


if __name__ == '__main__':
    main()
