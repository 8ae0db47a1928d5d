r"""Mask heads learn the objects of eight images by heart, given true boxes, and are scored on them.

    python projects/coco128/by_heart.py --out work_dirs/coco128/by_heart.json

How fine a mask a head can draw, whatever a detector finds: the backbone keeps ImageNet's weights,
the pyramid, the query and the mask head learn. Boxes are the annotations', shaken by a tenth of
their sides in training. Mask AP and boundary AP by mmsparse.BoundaryCocoMetric; of EffSeg also
without its last stages. Figures depend on the random start by several points, so give some seeds.
"""
from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from mmdet.registry import MODELS
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmsparse.engine import progress_display
from mmsparse.engine.config import read_config
from mmsparse.models.effseg import EffSegMaskHead
from mmsparse.models.effseg.mask_head import compose
from mmsparse.models.effseg.rois import RoIMasks, safe_rois

HEADS = {'Mask R-CNN++': 'mask-rcnn-plus', 'Mask R-CNN++ of 14x14': 'mask-rcnn-plus-14',
         'PointRend++': 'pointrend-plus', 'RefineMask++': 'refinemask-plus', 'EffSeg': 'effseg'}
FIGURES = ('segm_mAP', 'segm_mAP_75', 'boundary_mAP', 'boundary_mAP_50')
SHAKE = 0.1


def shaken(boxes: Tensor) -> Tensor:
    """Boxes ``[R, 4]`` with every side moved a bit."""
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + (2 * torch.rand_like(boxes) - 1) * SHAKE * size


class Study:
    """A model, and the eight images as its backbone sees them.

    Args:
        config: of a detector with one of EffSeg's RoI heads.
        seed: of the weights and of how boxes are shaken.
    """

    def __init__(self, config: str, seed: int) -> None:
        self.cfg = read_config(config)
        init_default_scope('mmdet')
        torch.manual_seed(seed)
        self.model: nn.Module = MODELS.build(self.cfg.model)
        self.model.init_weights()
        self.loader = Runner.build_dataloader(self.cfg.test_dataloader)
        self.data = self.model.data_preprocessor(next(iter(self.loader)), False)
        self.samples = self.data['data_samples']
        with torch.no_grad():
            self.seen = self.model.eval().backbone(self.data['inputs'])
        self.truth = [sample.gt_instances for sample in self.samples]
        self.boxes = [torch.as_tensor(t.bboxes) for t in self.truth]
        self.masks = [t.masks.to_tensor(torch.float32, 'cpu') for t in self.truth]

    def learn(self, iterations: int, rate: float) -> float:
        """Train; returns the seconds that it took."""
        head = self.model.roi_head
        parts = (self.model.neck, head.mask_head, head.bbox_head.shared_fcs)
        parameters = [p for part in parts for p in part.parameters()]
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, iterations)
        image = torch.cat([torch.full((len(b), 1), float(i)) for i, b in enumerate(self.boxes)])
        objects = torch.cat([torch.arange(len(b)) for b in self.boxes])
        labels = torch.cat([t.labels for t in self.truth])
        self.model.train()
        start = time.perf_counter()
        with progress_display() as progress:
            task = progress.add_task('Learn', total=iterations, note='')
            for _ in range(iterations):
                rois = safe_rois(torch.cat([image, shaken(torch.cat(self.boxes))], 1))
                feats = self.model.neck(self.seen)
                losses = head.mask_head.loss(
                    feats, head.roi_feats(feats, rois), head.queries(feats, rois),
                    RoIMasks(self.masks, rois, objects, labels))
                optimizer.zero_grad()
                total = sum(losses.values())
                total.backward()
                nn.utils.clip_grad_norm_(parameters, 5)
                optimizer.step()
                schedule.step()
                progress.update(task, advance=1, note=f'loss {total.item():.3f}')
        return time.perf_counter() - start

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """AP in true boxes, in percent."""
        evaluator = Evaluator([dict(self.cfg.test_evaluator, metric=['segm', 'boundary'])])
        evaluator.dataset_meta = self.loader.dataset.metainfo
        self.model.eval()
        found = [InstanceData(bboxes=b.clone(), labels=t.labels, scores=torch.ones(len(b)))
                 for b, t in zip(self.boxes, self.truth, strict=True)]
        found = self.model.roi_head.predict_mask(
            self.model.neck(self.seen), [s.metainfo for s in self.samples], found, rescale=True)
        for sample, result in zip(self.samples, found, strict=True):
            sample.pred_instances = result
        evaluator.process(self.samples, self.data)
        figures = evaluator.evaluate(len(self.samples))
        return {key: 100 * figures[f'coco/{key}'] for key in FIGURES}


def keep_stages(head: EffSegMaskHead, count: int) -> None:
    """Let the head say only what its first stages do."""
    def forward(feats, roi_feats, rois, queries, labels=None):
        return compose(head.run_stages(feats, roi_feats, rois, queries, training=False)[:count],
                       len(rois))
    head.forward = forward


def main() -> None:
    """All heads one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=tuple(HEADS))
    parser.add_argument('--seeds', nargs='+', type=int, default=(0, 1, 2))
    parser.add_argument('--iterations', type=int, default=250)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    args = parser.parse_args()
    rows: dict[str, list[dict]] = {}
    for name, seed in product(args.heads, args.seeds):
        stem = f'{HEADS[name]}_mnv2_coco128-320.py'
        study = Study(str(Path(__file__).parent / 'configs' / stem), seed)
        seconds = study.learn(args.iterations, args.lr)
        found = {name: dict(study.score(), seconds_per_iteration=seconds / args.iterations)}
        head = study.model.roi_head.mask_head
        for stages in (3, 2, 1) if isinstance(head, EffSegMaskHead) else ():
            keep_stages(head, stages)
            found[f'{name}, up to {14 << stages - 1}x{14 << stages - 1}'] = study.score()
        for row, figures in found.items():
            rows.setdefault(row, []).append(dict(seed=seed, **figures))
        if args.out:
            args.out.write_text(json.dumps(rows, indent=2) + '\n')
    table = Table(f'means of {len(args.seeds)}', *FIGURES, 'segm_mAP of each seed',
                  's per iteration')
    for name, runs in rows.items():
        seconds = [run['seconds_per_iteration'] for run in runs if 'seconds_per_iteration' in run]
        table.add_row(
            name, *(f'{mean(run[key] for run in runs):.1f}' for key in FIGURES),
            ' '.join(f'{run["segm_mAP"]:.1f}' for run in runs),
            f'{mean(seconds):.2f}' if seconds else '')
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
