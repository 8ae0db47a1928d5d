r"""Quality, time and memory of a refiner on large photographs, every pixel against a selector.

    python projects/refine/measure.py CONFIG CHECKPOINT --folder work_dirs/refine/fields

All settings in turns on the same images. Memory is that above weights and the image.
"""
from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mmsparse.apis import init_model, read_image
from mmsparse.engine import progress_display
from mmsparse.engine.machine import machine, peak_memory
from mmsparse.evaluation.boundary_mba import boundary_accuracy, boundary_band
from mmsparse.masks import read_mask
from mmsparse.registry import MODELS

SELECTOR = dict(type='mmsparse.BoundarySelector', num_classes=2)
RADII = (1, 3, 8)  # pixels of the bands that accuracy is given in, beside mBA's own


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--folder', type=Path, required=True, help="in BIG's layout")
    parser.add_argument('--gib', type=float, nargs='+', default=(1, 2, 4), metavar='GIB')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    return parser.parse_args()


def main() -> None:
    """Refine every image in every setting, print the table."""
    args = parse_args()
    model = init_model(args.config, args.checkpoint, 'cpu')
    model.test_cfg.min_area = 0
    selectors = dict(dense=None, selector=MODELS.build(SELECTOR))
    settings = [(kind, gib) for gib in args.gib for kind in selectors]
    files = sorted(args.folder.glob('*_im.png'))
    rows: dict[tuple, list[dict]] = {setting: [] for setting in [('coarse', 0), *settings]}
    with progress_display() as progress:
        task = progress.add_task('Measure', total=len(files) * len(settings), note='')
        for file in files:
            image = torch.from_numpy(read_image(file).transpose(2, 0, 1).copy())[None]
            coarse, target = (read_mask(str(file).replace('_im.png', f'_{kind}.png'))
                              for kind in ('seg', 'gt'))
            rows['coarse', 0].append(score(coarse, target))
            masks = torch.from_numpy(coarse)[None]
            for kind, gib in settings:
                model.selector = selectors[kind]
                model.test_cfg.max_bytes = int(gib * 2**30)
                found: list = []
                start = time.perf_counter()
                peak = peak_memory(
                    lambda image=image, masks=masks, found=found: found.append(
                        model.refine(image, masks)), torch.device('cpu'))
                seconds = time.perf_counter() - start
                rows[kind, gib].append(dict(
                    score(found[0].mask[0].numpy(), target), seconds=seconds, gib=peak / 2**30,
                    queried=found[0].queried[-1]))
                progress.advance(task)
    bands = [f'within {radius} px %' for radius in RADII]
    table = Table('', 'GiB allowed', 'IoU %', 'mBA %', *bands, 'queried at full size %', 's',
                  'peak GiB')
    summary = []
    for (kind, gib), entries in rows.items():
        iou = sum(e['intersection'] for e in entries) / sum(e['union'] for e in entries)
        line = dict(kind=kind, allowed_gib=gib, iou=100 * iou,
                    mba=100 * statistics.mean(e['mba'] for e in entries),
                    **{band: 100 * statistics.mean(e[band] for e in entries) for band in bands})
        if gib:
            line |= dict(queried=100 * statistics.mean(e['queried'] for e in entries),
                         seconds=statistics.median(e['seconds'] for e in entries),
                         peak_gib=max(e['gib'] for e in entries))
        summary.append(line)
        table.add_row(kind, *(f'{value:.{digits}f}' for value, digits in zip(
            list(line.values())[1:], (0, 2, 2, *(2 for _ in bands), 1, 1, 2), strict=False)))
    Console().print(table)
    if args.out:
        facts = dict(machine=machine(torch.device('cpu')), images=len(files), rows=summary)
        args.out.write_text(json.dumps(facts, indent=2) + '\n')


def score(mask: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """What pooled IoU and mBA are made of, and accuracy near the boundary."""
    mask, target = mask > 0.5, target > 0.5
    return dict(intersection=int((mask & target).sum()), union=int((mask | target).sum()),
                mba=boundary_accuracy(mask, target), **{
                    f'within {radius} px %': float(
                        (mask == target)[boundary_band(target, radius)].mean())
                    for radius in RADII})


if __name__ == '__main__':
    main()
