r"""What each stage of a mask head adds: how much of the masks is wrong after it.

    python projects/masks/stages.py scenes-1024x2048 --runs effseg-0 refinemask-plus-0

On annotated boxes of the validation pictures: of the cells of a grid of 112x112 that are at most
three cells from the true outline, the percentage that is wrong in the mask as it is after each
stage, resized to that grid; of all objects, and of those of more than 96x96 pixels.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from table import HEADS, trained
from torch import Tensor, nn

from mmsparse.models.effseg import EffSegMaskHead, QueryRefineMaskHead, mask_head, refine_mask
from mmsparse.models.effseg.rois import RoIMasks

GRID, NEAR = 112, 3


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='the end of the names of the configs: scenes-1024x2048')
    parser.add_argument('--runs', nargs='+', default=['effseg-0'],
                        help='folders of <work-dirs>/<data>, whose names begin with a head')
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs/masks'))
    parser.add_argument('--images', type=int, default=40)
    return parser.parse_args()


def masks_by_stage(roi_head: nn.Module, x: tuple[Tensor, ...], rois: Tensor, labels: Tensor
                   ) -> list[Tensor]:
    """Logits ``[R, 1, g, g]`` of the masks as they are after each stage.

    Args:
        x: the pyramid.
        rois: ``[R, 5]``.
        labels: int64 ``[R]``, classes.
    """
    head = roi_head.mask_head
    if isinstance(head, EffSegMaskHead):
        outputs = head.run_stages(
            x, roi_head.roi_feats(x, rois), rois, roi_head.queries(x, rois), training=False)
        return [mask_head.compose(outputs[:s], len(rois)) for s in range(1, len(outputs) + 1)]
    if isinstance(head, QueryRefineMaskHead):
        feats = head.fused(roi_head.roi_feats(x, rois), roi_head.queries(x, rois))
        logits = head.head(x, feats, rois, labels)
        return [logits[0], *(refine_mask.compose(logits[:s])
                             for s in range(refine_mask.LAST_WHOLE_STAGE + 1, len(logits) + 1))]
    return [roi_head.mask_logits(x, rois, labels)]


@torch.no_grad()
def count(models: dict[str, nn.Module], sample: dict) -> dict[tuple[str, int], Tensor]:
    """Cells near true outlines, by run and by the grid of a stage.

    ``[2, 2]``: of all objects, and of large ones; wrong after this stage, and all.
    """
    truth = sample['data_samples'].gt_instances
    rois = bbox2roi([truth.bboxes.tensor])
    masks = RoIMasks([truth.masks.to_tensor(torch.float32, rois.device)], rois,
                     torch.arange(len(rois)), truth.labels)
    inside = (masks.coverage(GRID) > 0.5)[:, None]
    near = refine_mask.boundary_band(inside, NEAR)
    large = masks.masks[0].sum((1, 2)) > 96 ** 2
    counts = {}
    for run, model in models.items():
        x = model.extract_feat(model.data_preprocessor(pseudo_collate([sample]), False)['inputs'])
        for logits in masks_by_stage(model.roi_head, x, rois, truth.labels):
            resized = F.interpolate(logits.float(), GRID, mode='bilinear')
            figures = torch.stack([((resized > 0) != inside) & near, near]).sum((2, 3, 4))  # [2, R]
            counts[run, logits.shape[-1]] = torch.stack(
                [figures.sum(1), figures[:, large].sum(1)])
    return counts


def main() -> None:
    """Count, print."""
    args = parse_args()
    models = {}
    for run in args.runs:
        head = next((head for head in HEADS.values() if run.startswith(head)), None)
        if head is None:
            raise SystemExit(f'--runs {run}: must begin with one of {", ".join(HEADS.values())}')
        models[run] = trained(head, args.data, args.work_dirs / args.data.split('-')[0] / run)
    cfg = next(iter(models.values())).cfg  # the pictures are the same in all
    init_default_scope('mmdet')
    dataset_cfg = cfg.val_dataloader.dataset
    # masks as for training, of the whole picture
    load = next(t for t in cfg.train_pipeline if t['type'] == 'LoadAnnotations')
    dataset_cfg.pipeline = [*dataset_cfg.pipeline[:1], load, *dataset_cfg.pipeline[1:]]
    dataset = DATASETS.build(dataset_cfg)
    total: dict[tuple[str, int], Tensor] = {}
    for index in track(range(min(args.images, len(dataset))), transient=True):
        sample = dataset[index]
        if len(sample['data_samples'].gt_instances):
            for key, figures in count(models, sample).items():
                total[key] = total.get(key, 0) + figures
    table = Table('', 'after the stage of', 'wrong near outlines, %', 'of large objects')
    for run in args.runs:
        for i, (grid, sizes) in enumerate((g, t) for (name, g), t in total.items() if name == run):
            table.add_row('' if i else run, f'{grid}x{grid}', *(
                f'{100 * wrong / cells:.1f}' if cells else '' for wrong, cells in sizes.tolist()))
    Console(width=160).print(table)


if __name__ == '__main__':
    main()
