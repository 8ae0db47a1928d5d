r"""What the mask heads of EffSeg's Table 4 cost at its sizes: multiply-accumulates, time, memory.

    python projects/coco128/heads.py --out work_dirs/coco128/heads.json [--device cuda]

Random weights, a pyramid of 800x1088 with 256 channels, 80 classes, the heads in turns. 97 RoIs for
all, and for EffSeg 61 as well: the number of distinct boxes behind 97 detections that the paper's
figures imply. Multiply-accumulates are those of convolutions and matrix products as torch counts
them; RoIAlign and sampling count none.
"""
from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmsparse.engine.complexity import dense_macs
from mmsparse.engine.config import read_config
from mmsparse.engine.machine import machine, peak_memory, synchronize

HEADS = {
    'Mask R-CNN++': ('mask-rcnn-plus_r50_fpn_1x_coco', 97),
    'PointRend++': ('pointrend-plus_r50_fpn_1x_coco', 97),
    'RefineMask++': ('refinemask-plus_r50_fpn_1x_coco', 97),
    'EffSeg': ('effseg_mask-rcnn_r50_fpn_1x_coco', 97),
    'EffSeg, distinct boxes': ('effseg_mask-rcnn_r50_fpn_1x_coco', 61),
}
SIZE = (800, 1088)


def boxes(count: int) -> Tensor:
    """RoIs of 32 to 512 pixels somewhere in the image, ``[count, 5]``."""
    side = 32 * 2 ** (4 * torch.rand(count, 2))
    room = torch.tensor([float(SIZE[1]), float(SIZE[0])]) - side
    corner = torch.rand(count, 2) * room
    return torch.cat([torch.zeros(count, 1), corner, corner + side], 1)


def build(name: str) -> nn.Module:
    """The RoI head of a config."""
    cfg = read_config(str(Path(__file__).parents[2] / 'configs' / 'effseg' / f'{name}.py'))
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model).roi_head.eval()


def masks(head: nn.Module, feats: list[Tensor], rois: Tensor, queries: Tensor, labels: Tensor
          ) -> Tensor:
    """Mask logits of RoIs."""
    return head.mask_head(feats, head.roi_feats(feats, rois), rois, queries, labels)


@torch.no_grad()
def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    args = parser.parse_args()
    torch.manual_seed(0)
    device = args.device
    feats = [torch.randn(1, 256, SIZE[0] // s, SIZE[1] // s) for s in (4, 8, 16, 32)]
    built = {config: build(config) for config, _ in HEADS.values()}
    inputs = {name: (boxes(count), torch.randn(count, 1024), torch.randint(80, (count,)))
              for name, (_, count) in HEADS.items()}
    rows = {name: dict(
        rois=count,
        million_parameters=sum(p.numel() for p in built[config].mask_head.parameters()) / 1e6,
        # on the CPU: torch does not see what the GPU's own kernels multiply
        gmacs=dense_macs(partial(masks, built[config], feats, *inputs[name])) / 1e9)
        for name, (config, count) in HEADS.items()}
    feats = [f.to(device) for f in feats]
    runs = {name: partial(masks, built[config].to(device), feats,
                          *(x.to(device) for x in inputs[name]))
            for name, (config, _) in HEADS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    table = Table('', 'RoIs', 'M parameters', 'GMACs', 'ms', 'peak MiB')
    for name, run in runs.items():
        rows[name] |= dict(seconds=statistics.median(seconds[name]),
                           peak_mib=peak_memory(run, device) / 2**20)
        row = rows[name] | dict(seconds=1000 * rows[name]['seconds'])
        table.add_row(name, *(f'{v:.{d}f}' for v, d in zip(
            row.values(), (0, 2, 1, 1, 0), strict=True)))
    Console(width=100).print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(
            dict(machine=machine(device), heads=rows), indent=2) + '\n')


if __name__ == '__main__':
    main()
