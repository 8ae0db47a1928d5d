r"""Quality, time and memory of a refiner on large photographs, every pixel against a selector.

    python projects/refine/measure.py CONFIG CHECKPOINT --folder work_dirs/refine/fields

All settings in turns on the same images, and beside them what needs no training: a guided filter
(He et al., ECCV 2010) of the coarse mask, at the best of some radii and strengths for the whole
folder, a choice in its favor. Memory is that above weights and the image.
"""
from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import cv2
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
BANDS = tuple(f'within {radius} px %' for radius in RADII)
GUIDED = tuple(itertools.product((4, 8, 16, 32), (1e-4, 1e-3, 1e-2)))  # radius, strength


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
    guided: dict[tuple, list[dict]] = {setting: [] for setting in GUIDED}
    with progress_display() as progress:
        task = progress.add_task('Measure', total=len(files) * len(settings), note='')
        for file in files:
            rgb = read_image(file)
            image = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
            coarse, target = (read_mask(str(file).replace('_im.png', f'_{kind}.png'))
                              for kind in ('seg', 'gt'))
            rows['coarse', 0].append(score(coarse, target))
            for setting in GUIDED:
                start = time.perf_counter()
                filtered = guided_filter(rgb, coarse, *setting)
                seconds = time.perf_counter() - start
                guided[setting].append(dict(score(filtered, target), seconds=seconds))
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
    best = max(GUIDED, key=lambda setting: pooled_iou(guided[setting]))
    rows = {('coarse', 0): rows.pop(('coarse', 0)),
            ('guided filter, radius {} strength {}'.format(*best), 0): guided[best], **rows}
    summary = [summarize(kind, gib, entries) for (kind, gib), entries in rows.items()]
    columns = dict(
        kind='', allowed_gib='GiB allowed', iou='IoU %', mba='mBA %',
        **{band: band for band in BANDS}, queried='queried at full size %', seconds='s',
        peak_gib='peak GiB')
    table = Table(*columns.values())
    for line in summary:
        table.add_row(*(value if isinstance(value := line.get(key, ''), str) else f'{value:.2f}'
                        for key in columns))
    Console(width=160).print(table)
    if args.out:
        facts = dict(machine=machine(torch.device('cpu')), images=len(files), rows=summary)
        args.out.write_text(json.dumps(facts, indent=2) + '\n')


def guided_filter(image: np.ndarray, mask: np.ndarray, radius: int, strength: float
                  ) -> np.ndarray:
    """The mask as a linear function of the color in every window (He et al. 2010, section 3.3).

    Args:
        image: uint8 ``[H, W, 3]``.
        mask: ``[H, W]``, 0 to 1.
        radius: of the square windows, in pixels.
        strength: added to the variances of the colors (0 to 1).

    Returns:
        float32 ``[H, W]``.
    """
    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (2 * radius + 1, 2 * radius + 1))

    guide, mask = image.astype(np.float32) / 255, mask.astype(np.float32)
    mean_guide, mean_mask = mean(guide), mean(mask)
    covariance = mean(guide * mask[..., None]) - mean_guide * mean_mask[..., None]
    variance = np.empty((*mask.shape, 3, 3), np.float32)
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        product = mean(guide[..., i] * guide[..., j])
        variance[..., i, j] = variance[..., j, i] = (
            product - mean_guide[..., i] * mean_guide[..., j])
    variance += strength * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(variance, covariance[..., None])[..., 0]
    offset = mean_mask - (slope * mean_guide).sum(-1)
    return (mean(slope) * guide).sum(-1) + mean(offset)


def pooled_iou(entries: list[dict]) -> float:
    """IoU of all pixels together."""
    return sum(e['intersection'] for e in entries) / sum(e['union'] for e in entries)


def summarize(kind: str, gib: float, entries: list[dict]) -> dict[str, float | str]:
    """The figures of one setting; shares in percent."""
    line: dict[str, float | str] = dict(
        kind=kind, iou=100 * pooled_iou(entries),
        **{key: 100 * statistics.mean(e[key] for e in entries) for key in ('mba', *BANDS)})
    if 'seconds' in entries[0]:
        line |= dict(seconds=statistics.median(e['seconds'] for e in entries))
    if gib:
        line |= dict(allowed_gib=gib, queried=100 * statistics.mean(e['queried'] for e in entries),
                     peak_gib=max(e['gib'] for e in entries))
    return line


def score(mask: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """What pooled IoU and mBA are made of, and accuracy near the boundary."""
    mask, target = mask > 0.5, target > 0.5
    return dict(intersection=int((mask & target).sum()), union=int((mask | target).sum()),
                mba=boundary_accuracy(mask, target), **{
                    band: float((mask == target)[boundary_band(target, radius)].mean())
                    for band, radius in zip(BANDS, RADII, strict=True)})


if __name__ == '__main__':
    main()
