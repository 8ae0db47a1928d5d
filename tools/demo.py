"""Train, refine and compare on built-in scenes: low resolution, dense, SparseRefine.

No download and no GPU. Three configs of this package are trained by mmengine's runner:

1. low resolution: a small FCN on a U-Net on half-size pictures;
2. dense high resolution: the same network, schedule, batch and crop on full-size pictures;
3. SparseRefine on the frozen first one.

Then all three label the same held-out scenes at full size, one image at a time and in turns, so
that a busy machine slows them alike. Takes 8 to 12 minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    import numpy as np
    import torch
    from mmengine.config import Config
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    from rich.table import Table

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'sparserefine'
# key in summary.json: title, config
MODELS = {
    'low': ('Low resolution', 'fcn_hr16s_1xb2-400_scenes-512x1024.py'),
    'dense': ('Dense high resolution', 'fcn_hr16s_1xb2-400_scenes-1024x2048.py'),
    'refined': ('SparseRefine', 'sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'),
}
PICTURES = 4
DETAIL = (256, 512)  # size of the enlarged window in full-size pixels


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'),
                        help='where logs, checkpoints, pictures and summary.json go')
    parser.add_argument('--images', type=int, default=20, help='number of held-out test scenes')
    parser.add_argument('--quick', action='store_true',
                        help='three iterations on tiny scenes: shows that everything runs; the '
                        'figures mean nothing')
    args = parser.parse_args()
    if args.images < 1:
        parser.error(f'--images must be at least 1, got {args.images}')
    return args


def load_config(key: str, args: argparse.Namespace) -> Config:
    """The config of one model, told where to work and how many scenes to test on."""
    from mmengine.config import Config

    title, file = MODELS[key]
    cfg = Config.fromfile(CONFIGS / file)
    cfg.work_dir = str(args.work_dir / key)
    cfg.visualizer.name = key  # mmengine shares a visualizer, and its files, by name
    cfg.custom_hooks = [dict(type='mmsparse.RichProgressHook', description=f'Train: {title:<22}')]
    # Scores are taken once, at the end. No loading processes then: they would disturb the clock.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.length = args.images
    if args.quick:
        cfg.train_cfg.max_iters = cfg.default_hooks.checkpoint.interval = 3
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            loader.dataset.size = (128, 256)
        for step in cfg.train_dataloader.dataset.pipeline:
            if step.type == 'RandomCrop':
                step.crop_size = (64, 64)
    if key == 'refined':
        low = args.work_dir / 'low' / f'iter_{cfg.train_cfg.max_iters}.pth'
        cfg.model.segmentor_checkpoint = str(low)
    return cfg


def train(cfg: Config) -> torch.nn.Module:
    """Train with the stock runner; the model, as it predicts fastest in torch."""
    from mmengine.runner import Runner

    from mmsparse.engine.fusion import fuse_for_inference

    runner = Runner.from_cfg(cfg)
    runner.train()
    return fuse_for_inference(runner.model)


def pixels(field: PixelData) -> np.ndarray:
    """A map of a data sample, ``[1, H, W]`` there, as array ``[H, W]``."""
    return field.data[0].numpy()


def draw(folder: Path, name: str, batch: dict, sample: SegDataSample, meta: dict) -> None:
    """Write the panels of one scene, whole and enlarged where most changed."""
    import cv2

    from mmsparse.visualization import changes, liveliest_window, refinement_panels

    image = batch['inputs'][0].permute(1, 2, 0).numpy()
    low, selected, refined, label = (pixels(f) for f in (
        sample.low_res_sem_seg, sample.selected, sample.pred_sem_seg, sample.gt_sem_seg))
    window = liveliest_window(*changes(low, refined, label), size=DETAIL)
    for suffix, part in (('', None), ('_detail', window)):
        panels = refinement_panels(image, low, selected, refined, label, classes=meta['classes'],
                                   palette=meta['palette'], window=part)
        cv2.imwrite(str(folder / f'{name}{suffix}.png'), panels)


def compare_all(models: dict[str, torch.nn.Module], configs: dict[str, Config],
                folder: Path) -> dict:
    """Compare the models on the held-out scenes and draw the first few.

    Returns:
        What goes to ``summary.json``: mIoU and mean IoU of the small classes in percent, median
        milliseconds per image, share of refined pixels, number of images.
    """
    from mmsparse.datasets import SceneDataset
    from mmsparse.engine import compare, progress_display

    loaders = {key: configs[key].test_dataloader for key in models}
    images = loaders['low'].dataset.length
    with progress_display() as progress:
        task = progress.add_task('Compare on held-out scenes   ', total=images * 3, note='')

        def on_sample(key: str, index: int, batch: dict, sample: SegDataSample) -> None:
            if key == 'refined' and index < PICTURES:
                draw(folder, f'scene_{index}', batch, sample, SceneDataset.METAINFO)
            progress.advance(task)

        scores = compare(models, loaders, on_sample)
    figures = dict(miou='miou', small_iou='small_iou', ms='milliseconds')
    summary = {f'{short}_{key}': getattr(scores[key], name)
               for short, name in figures.items() for key in scores}
    return summary | dict(density=scores['refined'].density, images=images)


def result_table(summary: dict, shape: tuple[int, int]) -> Table:
    """The summary for people."""
    from rich.table import Table

    table = Table(title=f'{summary["images"]} held-out scenes of {shape[0]} x {shape[1]}, '
                        'labels at full size')
    table.add_column('')
    for name in ('mIoU %', 'small classes IoU %', 'time per image ms', 'pixels refined'):
        table.add_column(name, justify='right')
    for key in ('low', 'refined', 'dense'):
        table.add_row(
            MODELS[key][0], f'{summary[f"miou_{key}"]:.1f}', f'{summary[f"small_iou_{key}"]:.1f}',
            f'{summary[f"ms_{key}"]:.0f}', f'{summary["density"]:.1%}' if key == 'refined' else '',
            style='bold' if key == 'refined' else '')
    return table


@contextlib.contextmanager
def console_to(file: Path) -> Iterator[None]:
    """Send what the framework prints to a file; the progress display stays on the terminal."""
    with file.open('w') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def main() -> None:
    """Train the three models, compare them, write the summary and the pictures."""
    args = parse_args()
    # Read when torch loads: threads that spin while they wait crawl on a machine that is not idle.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    log = args.work_dir / 'console.log'
    from rich.console import Console

    out = Console(file=sys.__stdout__)
    out.print(f'Three short trainings and a comparison; the log goes to {log}')
    start = time.perf_counter()
    with console_to(log):
        import mmsparse  # noqa: F401  config prefixes, on the forks

        configs = {key: load_config(key, args) for key in MODELS}
        models = {}
        for key, cfg in configs.items():
            models[key] = train(cfg)
            gc.collect()  # ends the loading process and frees its scenes
        summary = compare_all(models, configs, args.work_dir)
    (args.work_dir / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    out.print(result_table(summary, configs['low'].test_dataloader.dataset.size))
    out.print(f'SparseRefine: {summary["miou_refined"] - summary["miou_low"]:+.1f} mIoU over low '
              f'resolution, {summary["ms_dense"] / summary["ms_refined"]:.2f} times the speed of '
              f'the dense model. Total {(time.perf_counter() - start) / 60:.1f} minutes.')
    out.print(f'Pictures and summary.json: {args.work_dir}')


if __name__ == '__main__':
    main()
