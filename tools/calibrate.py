"""Choose the threshold of a SparseRefine selector: for a recall, a density, or a time per image.

One pass of the low-resolution segmentor over held-out images; the checkpoint is that of the
segmentor alone, or of a trained SparseRefine model. Prints and plots recall, precision and density
over the threshold, and writes the chosen one to a JSON file that a config can inherit:

    _base_ = ['my_config.py', 'work_dirs/my_config/calibration.json']
    model = dict(selector=dict(alpha=_base_.calibration.alpha))
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import (
    add_backend_options,
    add_cfg_options,
    add_launcher_option,
    check_config,
    find_checkpoint,
    join_processes,
    leave,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    import torch
    from mmengine.config import Config
    from rich.table import Table

    from mmsparse.engine.calibration import ScoreCurve
    from mmsparse.engine.latency import TimeModel
    from mmsparse.models.sparserefine import SparseRefineSegmentor

WARNINGS = {
    'train': 'calibrated on training images: there the segmentor is more certain than elsewhere, '
             'so expect another density and recall on new images',
    'test': 'calibrated on test images: results reported on them would be flattered',
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a SparseRefine model')
    parser.add_argument('checkpoint', nargs='?',
                        help='of its low-resolution segmentor, or of the whole model; left out '
                             'where the config is mmsparse://NAME of the zoo')
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument('--target-recall', type=float, metavar='R',
                      help='largest threshold that finds this share of the wrong pixels')
    goal.add_argument('--density', type=float, metavar='D',
                      help='smallest threshold that selects no more than this share of the pixels')
    goal.add_argument('--latency-budget', type=float, metavar='MS',
                      help='smallest threshold with which 95 %% of the images are expected to take '
                           'no longer than this here, by times measured on three of them')
    add_backend_options(parser)
    parser.add_argument('--split', choices=('val', 'train', 'test'), default='val',
                        help='whose images (default: val); with the pipeline of val')
    parser.add_argument('--images', type=int, help='use this many, evenly spread (default: all)')
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument('--out', type=Path, help='default: work_dirs/NAME_OF_CONFIG/'
                                                 'calibration.json; the plot lies beside it')
    parser.add_argument('--force', action='store_true', help='overwrite it')
    add_cfg_options(parser)
    add_launcher_option(parser)
    args = parser.parse_args()
    for name in ('target_recall', 'density'):
        value = getattr(args, name)
        if value is not None and not 0 < value <= 1:
            parser.error(f'--{name.replace("_", "-")} must be in (0, 1], got {value}')
    if args.latency_budget is not None and not args.latency_budget > 0:
        parser.error(f'--latency-budget must be above 0 ms, got {args.latency_budget}')
    if args.images is not None and args.images < 1:
        parser.error(f'--images must be at least 1, got {args.images}')
    return args


def build_model(cfg: Config, checkpoint: str, device: torch.device) -> SparseRefineSegmentor:
    """The model with the weights of its segmentor, or all of them."""
    from mmsparse.checkpoint import load_checkpoint, load_weights, state_dict_of
    from mmsparse.engine.loading import load_model
    from mmsparse.models.sparserefine import LearnableSelector, SparseRefineSegmentor
    from mmsparse.models.sparserefine.weights import is_refiner

    model = load_model(cfg, None, device)
    if not isinstance(model, SparseRefineSegmentor):
        stop(f'{cfg.filename} builds {type(model).__name__}, not SparseRefineSegmentor: it has no '
             'selector')
    if is_refiner(state_dict_of(load_checkpoint(checkpoint), checkpoint)):
        load_weights(model, checkpoint)
    elif isinstance(model.selector, LearnableSelector):
        stop(f'{checkpoint} holds the segmentor alone, but LearnableSelector has weights: train '
             'first')
    else:
        load_weights(model.segmentor, checkpoint)
    return model


def build_loader(cfg: Config, split: str, images: int | None) -> torch.utils.data.DataLoader:
    """The images of a split, one at a time, as validation sees them; every one in one process."""
    from mmengine.registry import DATASETS
    from mmengine.runner import Runner
    from torch.utils.data import ConcatDataset, Subset

    from mmsparse.engine.plain_datasets import plain_datasets

    loader = cfg.val_dataloader
    pipeline = plain_datasets(loader.dataset)[0].pipeline
    parts = [DATASETS.build(dict(part, pipeline=pipeline))
             for part in plain_datasets(cfg[f'{split}_dataloader'].dataset)]
    classes = [part.metainfo.get('classes') for part in parts]
    if any(other != classes[0] for other in classes):
        stop(f'{split}_dataloader joins datasets of different classes: {classes}')
    dataset = ConcatDataset(parts)
    if images is not None and images < len(dataset):
        dataset = Subset(dataset, [i * len(dataset) // images for i in range(images)])
    loader = dict(loader, batch_size=1, dataset=dataset, sampler=dict(
        type='DefaultSampler', shuffle=False, round_up=False))
    return Runner.build_dataloader(loader)


def time_model(model: SparseRefineSegmentor, curve: ScoreCurve,
               loader: torch.utils.data.DataLoader) -> TimeModel:
    """From three images of the split, evenly spread."""
    from mmengine.dataset import pseudo_collate

    from mmsparse.engine import progress_display
    from mmsparse.engine.latency import SHARES, measure_times

    dataset = loader.dataset
    count = min(3, len(dataset))
    batches = [pseudo_collate([dataset[i * len(dataset) // count]]) for i in range(count)]
    with progress_display() as progress:
        task = progress.add_task('Measure', total=count * len(SHARES), note='')
        return measure_times(model, curve, batches, progress=lambda: progress.advance(task))


def is_training_data(cfg: Config, split: str) -> bool:
    """Whether a split has images of the training set, pipelines aside."""
    from mmsparse.engine.plain_datasets import plain_datasets

    images, train = ([{k: v for k, v in dataset.items() if k not in ('pipeline', 'test_mode')}
                      for dataset in plain_datasets(cfg[f'{name}_dataloader'].dataset)]
                     for name in (split, 'train'))
    return any(dataset in train for dataset in images)


def curve_table(curve: ScoreCurve, chosen: int, name: str, title: str) -> Table:
    """The curve at round recalls, and the chosen threshold."""
    from rich.table import Table

    table = Table(name, 'recall', 'precision', 'density', title=title)
    rows = {chosen}
    for recall in (.5, .6, .7, .8, .85, .9, .95, .98):
        if curve.recall()[0] >= recall:
            rows.add(curve.for_recall(recall))
    figures = curve.recall(), curve.precision(), curve.density()
    for row in sorted(rows, reverse=True):
        table.add_row(f'{curve.thresholds[row]:.3g}', *(f'{v[row]:.1%}' for v in figures),
                      style='bold' if row == chosen else '')
    return table


def summarize(curve: ScoreCurve, chosen: int, name: str, **facts: Any) -> dict:
    """What goes into the JSON file; JSON has no NaN: ``None`` stands for a share of nothing."""
    figures = dict(recall=curve.recall(), precision=curve.precision(), density=curve.density())
    figures = {key: float(values[chosen]) for key, values in figures.items()}
    return dict(calibration={
        name: float(curve.thresholds[chosen]),
        **{key: None if math.isnan(value) else value for key, value in figures.items()},
        'error_rate': curve.error_rate(),
        **facts,
    })


def main() -> None:
    """Count, choose, print, plot, write."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    out = args.out or Path('work_dirs', Path(args.config).stem, 'calibration.json')
    if out.exists() and not args.force:
        stop(f'{out} exists; --force overwrites it')
    join_processes(args)

    import torch
    from mmengine.dist import is_main_process
    from rich.console import Console

    from mmsparse.engine import progress_display
    from mmsparse.engine.calibration import plot, score_curve
    from mmsparse.engine.config import read_config
    from mmsparse.engine.fusion import fuse_for_inference

    cfg = read_config(args.config, args.cfg_options)
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    with one_line_errors():
        model = build_model(cfg, args.checkpoint, device)
    loader = build_loader(cfg, args.split, args.images)
    expected: dict[str, float] = {}
    try:
        fuse_for_inference(model, backend=args.backend, dtype=args.dtype)
        with progress_display(disable=not is_main_process()) as progress:
            task = progress.add_task('Count', total=len(loader), note='')
            curve = score_curve(model, loader, lambda: progress.advance(task))
        if not is_main_process():
            leave()
            return
        if args.latency_budget is not None:
            chosen, p50, p95 = time_model(model, curve, loader).choose(curve, args.latency_budget)
            expected = dict(expected_ms_p50=p50, expected_ms_p95=p95)
        elif args.target_recall is None:
            chosen = curve.for_density(args.density)
        else:
            chosen = curve.for_recall(args.target_recall)
    except ValueError as error:
        stop(str(error))
    name = model.selector.THRESHOLD
    images = len(loader.dataset)
    title = (f'{images} {args.split} images, {curve.error_rate():.2%} of their '
             'low-resolution pixels wrong')
    Console().print(curve_table(curve, chosen, name, title))
    split = 'train' if is_training_data(cfg, args.split) else args.split
    if split in WARNINGS:
        print(f'{Path(sys.argv[0]).name}: {WARNINGS[split]}', file=sys.stderr)
    summary = summarize(curve, chosen, name, split=args.split, images=images,
                        config=args.config, checkpoint=args.checkpoint, **expected)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary, indent=2) + '\n')
    plot(curve, chosen, name).savefig(out.with_suffix('.png'))
    if expected:
        Console(soft_wrap=True).print(
            f'expected time per image: {p50:.0f} ms (median), {p95:.0f} ms (95th percentile)')
    Console(soft_wrap=True).print(f'{name} = {curve.thresholds[chosen]:.3g} written to {out}, '
                                  f'the curve to {out.with_suffix(".png")}')
    leave()


if __name__ == '__main__':
    main()
