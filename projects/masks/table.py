r"""One row for each mask head: how exact its masks are, and what the head takes.

    python projects/masks/table.py carparts-320 --seeds 0 1

Accuracy is what the last validation or test of `work_dirs/masks/<data>/<head>-<seed>` logged; a
head that was not trained with each seed is named and left out. Times are those of the mask heads
alone, RoI features and query included, masks not pasted, on the annotated boxes of the same
pictures, in turns; 0 pictures: no times. Prints the table, writes a JSON file.
"""
from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.table import Table
from torch import nn

from mmsparse.apis import init_model
from mmsparse.engine.machine import machine

HEADS = {'Mask R-CNN++ (28x28)': 'mask-rcnn-plus', 'PointRend++ (224x224)': 'pointrend-plus',
         'RefineMask++ (112x112)': 'refinemask-plus', 'EffSeg (112x112)': 'effseg'}
FIGURES = {'box AP': 'bbox_mAP', 'mask AP': 'segm_mAP', 'mask AP75': 'segm_mAP_75',
           'boundary AP': 'boundary_mAP', 'under 96x96': 'boundary_mAP_m',
           'above': 'boundary_mAP_l'}
CONFIGS = Path(__file__).parent / 'configs'


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='the end of the names of the configs: carparts-320')
    parser.add_argument('--seeds', type=int, nargs='+', default=(0,))
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs/masks'))
    parser.add_argument('--images', type=int, default=50, help='that heads are timed on')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/masks/table.json'))
    return parser.parse_args()


def trained(head: str, data: str, run: Path) -> nn.Module:
    """The model of the head's config with the last weights in the folder of a run."""
    configs = [*CONFIGS.glob(f'{head}_*_{data}.py')]
    if not configs:
        raise SystemExit(f'{data}: no name of a config in {CONFIGS} ends so')
    return init_model(configs[0], (run / 'last_checkpoint').read_text())


def logged(folder: Path) -> dict[str, float] | None:
    """Percent of the last validation or test of a run; none, if none was logged in its folder."""
    for log in sorted((*folder.glob('*/vis_data/scalars.json'), *folder.glob('*/*.json')),
                      key=lambda path: path.relative_to(folder).parts[0], reverse=True):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        if scored := [line for line in lines if 'coco/segm_mAP' in line]:
            return {name: 100 * scored[-1][f'coco/{key}'] for name, key in FIGURES.items()}
    return None


@torch.no_grad()
def head_seconds(models: dict[str, nn.Module], dataset: Any, images: int
                 ) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each mask head on each picture, and how many boxes it has."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    counts = []
    for index in range(min(images, len(dataset))):
        batch = pseudo_collate([dataset[index]])
        things = dataset.get_data_info(index)['instances']
        if not things:
            continue
        counts.append(len(things))
        sample = batch['data_samples'][0]
        boxes = torch.tensor([thing['bbox'] for thing in things]) * torch.tensor(
            sample.scale_factor * 2, dtype=torch.float32)
        rois = bbox2roi([boxes])
        labels = torch.tensor([thing['bbox_label'] for thing in things])
        for name, model in models.items():
            x = model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
            for _ in range(2):  # the second one counts
                start = time.perf_counter()
                model.roi_head.mask_logits(x, rois, labels)
                elapsed = time.perf_counter() - start
            seconds[name].append(elapsed)
    return seconds, counts


def main() -> None:
    """Collect, measure, print."""
    args = parse_args()
    runs = args.work_dirs / args.data.split('-')[0]
    rows: dict[str, dict] = {}
    for name, head in HEADS.items():
        folders = [runs / f'{head}-{seed}' for seed in args.seeds]
        seeds = [logged(folder) for folder in folders]
        if None in seeds:
            print(f'{folders[seeds.index(None)]}: no validation was logged, {name} is left out')
        else:
            rows[name] = dict(seeds=seeds)
    if not rows:
        raise SystemExit('no head has been trained with all of these seeds')
    if args.images:
        models = {name: trained(HEADS[name], args.data, runs / f'{HEADS[name]}-{args.seeds[0]}')
                  for name in rows}
        cfg = next(iter(models.values())).cfg
        init_default_scope('mmdet')
        seconds, counts = head_seconds(
            models, DATASETS.build(cfg.val_dataloader.dataset), args.images)
        for name, row in rows.items():
            row |= dict(milliseconds=1000 * statistics.median(seconds[name]),
                        boxes=statistics.mean(counts))
    table = Table('', *FIGURES, 'ms of the head')
    for name, row in rows.items():
        cells = [f'{statistics.mean(values):.1f} ({", ".join(f"{v:.1f}" for v in values)})'
                 for values in ([run[figure] for run in row['seeds']] for figure in FIGURES)]
        table.add_row(name, *cells, f'{row["milliseconds"]:.0f}' if args.images else '')
    Console(width=160).print(table)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(
        dict(machine=machine(torch.device('cpu')), data=args.data, heads=rows), indent=2) + '\n')


if __name__ == '__main__':
    main()
