r"""What each stage of EffSeg adds: how many of the cells it computes it has right.

    python projects/masks/stages.py scenes-1024x2048 --runs effseg-0 effseg-1

On annotated boxes of the validation pictures, of all objects and of those of more than 96x96
pixels. Beside the stage's own share of right cells stands that of the stages before, interpolated
to the same cells: what the mask would be there without it.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmsparse.apis import init_model
from mmsparse.models.effseg.mask_head import compose
from mmsparse.models.effseg.rois import RoIMasks

CONFIGS = Path(__file__).parent / 'configs'


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='the end of the name of the config: scenes-1024x2048')
    parser.add_argument('--runs', nargs='+', default=['effseg-0'])
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs/masks'))
    parser.add_argument('--images', type=int, default=40)
    return parser.parse_args()


@torch.no_grad()
def count(model: nn.Module, sample: dict) -> Tensor:
    """Cells of each stage, how many of them it has right, and how many the stages before.

    ``[4, 2, 3]``: of all objects, and of large ones.
    """
    batch = pseudo_collate([sample])
    truth = sample['data_samples'].gt_instances
    rois = bbox2roi([truth.bboxes.tensor])
    masks = RoIMasks([truth.masks.to_tensor(torch.float32, rois.device)], rois,
                     torch.arange(len(rois)), truth.labels)
    head = model.roi_head
    x = model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
    outputs = head.mask_head.run_stages(
        x, head.roi_feats(x, rois), rois, head.queries(x, rois), training=False)
    large = masks.masks[0].sum((1, 2)) > 96 ** 2
    counts = []
    for s, output in enumerate(outputs):
        cells = tuple(output.cells.T)
        inside = masks.coverage(output.size)[cells] > 0.5
        right = (output.segmentation > 0) == inside
        before = right
        if s:
            coarse = F.interpolate(compose(outputs[:s], len(rois)), scale_factor=2, mode='bilinear')
            before = (coarse[:, 0][cells] > 0) == inside
        figures = torch.stack([torch.ones_like(right), right, before]).float()  # [3, N]
        counts.append(torch.stack([figures.sum(1), figures[:, large[cells[0]]].sum(1)]))
    return torch.stack(counts)


def main() -> None:
    """Count, print."""
    args = parse_args()
    config, = CONFIGS.glob(f'effseg_*_{args.data}.py')
    cfg = Config.fromfile(config)
    init_default_scope('mmdet')
    dataset_cfg = cfg.val_dataloader.dataset
    # masks as for training, of the whole picture
    load = next(t for t in cfg.train_pipeline if t['type'] == 'LoadAnnotations')
    dataset_cfg.pipeline = [*dataset_cfg.pipeline[:1], load, *dataset_cfg.pipeline[1:]]
    dataset = DATASETS.build(dataset_cfg)
    table = Table('', 'grid', 'right %', 'stages before', 'large: right %', 'stages before')
    for run in args.runs:
        checkpoint = args.work_dirs / args.data.split('-')[0] / run / 'last_checkpoint'
        model = init_model(cfg, checkpoint.read_text())
        total = torch.zeros(4, 2, 3)
        for index in range(min(args.images, len(dataset))):
            sample = dataset[index]
            if len(sample['data_samples'].gt_instances):
                total += count(model, sample)
        for s, sizes in enumerate(total.tolist()):
            shares = [f'{100 * part / max(cells, 1):.1f}' if s or i == 0 else ''
                      for cells, *parts in sizes for i, part in enumerate(parts)]
            table.add_row('' if s else run, str(14 << s), *shares)
    Console().print(table)


if __name__ == '__main__':
    main()
