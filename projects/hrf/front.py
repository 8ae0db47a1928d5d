r"""Accuracy against time of the dense network at several sizes, and of refinement, in one plot.

    python projects/hrf/front.py mmsparse://sparserefine-s_wnet_hrf --out front.png

Every photograph goes through every model in turn, each computed in the fastest way of the CPU
(OpenVINO, bfloat16); accuracy is that of the same passes. A time is that of `predict` on a
preprocessed picture, to classes of the photograph's own size. Memory is what one more pass takes at
most above what is held before it; OpenVINO holds its buffers from pass to pass, so that only
``--backend torch`` shows all of it. Writes a JSON file beside the plot.
"""
from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib as mpl
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmseg.datasets import BaseSegDataset
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import DATASETS, METRICS
from rich.console import Console
from rich.table import Table

from mmsparse.engine import progress_display
from mmsparse.engine.fusion import BACKENDS, DTYPES, fuse_for_inference
from mmsparse.engine.loading import load_model
from mmsparse.engine.machine import machine, peak_memory

ASPECT = 1104 / 1024  # of what W-Net sees, width to height
STYLES = ('o-', 's', '*')


@dataclass
class Candidate:
    """A model, what feeds it, and what was found."""

    model: BaseSegmentor
    dataset: BaseSegDataset
    evaluator: Evaluator
    seconds: list[float] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('refined', nargs='+', help='names of the zoo, or CONFIG=CHECKPOINT')
    parser.add_argument('--dense', default='mmsparse://wnet_hrf', help='at several heights')
    parser.add_argument('--peers', nargs='+', default=[], metavar='CONFIG=CHECKPOINT',
                        help='dense networks, each at the size of its config')
    parser.add_argument('--heights', type=int, nargs='+', metavar='H',
                        default=(512, 640, 768, 896, 1024, 1366, 2048), help='of the dense inputs')
    parser.add_argument('--backend', choices=BACKENDS, default=BACKENDS[-1])
    parser.add_argument('--dtype', choices=DTYPES, default=DTYPES[-1])
    parser.add_argument('--passes', type=int, default=2, help='timed passes of each photograph')
    parser.add_argument('--out', type=Path, required=True)
    return parser.parse_args()


def short_name(name: str) -> str:
    """What a model is called in the table and in the plot."""
    return Path(name.partition('=')[0]).stem.partition('_')[0]


def candidate(model: BaseSegmentor, height: int | None = None) -> Candidate:
    """A model with the test set of its config, pictures resized to a height if one is given."""
    dataset = copy.deepcopy(model.cfg.test_dataloader.dataset)
    if height is not None:
        resize = next(step for step in dataset.pipeline if step.type == 'Resize')
        resize.scale = (round(ASPECT * height), height)
    metrics = [dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice']),
               dict(type='mmsparse.ThinStructureMetric')]
    built = DATASETS.build(dataset)
    evaluator = Evaluator([METRICS.build(metric) for metric in metrics])
    evaluator.dataset_meta = built.metainfo
    return Candidate(model, built, evaluator)


def measure(candidates: dict[str, Candidate], passes: int) -> None:
    """Every photograph through every model, in turns; then the memory and figures of each."""
    count = len(next(iter(candidates.values())).dataset)
    with progress_display() as progress, torch.no_grad():
        task = progress.add_task('Measure', total=count * len(candidates) * passes, note='')
        for index in range(count):
            for entry in candidates.values():
                raw = pseudo_collate([entry.dataset[index]])
                batch = entry.model.data_preprocessor(raw)
                if index == 0:
                    entry.model(**batch, mode='predict')  # compiles
                for _ in range(passes):
                    start = time.perf_counter()
                    samples = entry.model(**batch, mode='predict')
                    entry.seconds.append(time.perf_counter() - start)
                    progress.advance(task)
                entry.evaluator.process(samples)
    for entry in candidates.values():
        batch = entry.model.data_preprocessor(pseudo_collate([entry.dataset[0]]))
        with torch.no_grad():
            peak = peak_memory(partial(entry.model, **batch, mode='predict'), torch.device('cpu'))
        figures = dict(seconds=statistics.median(entry.seconds), peak_mib=peak / 2**20,
                       **entry.evaluator.evaluate(count))
        entry.figures = {key: float(value) for key, value in figures.items()}


def draw(groups: dict[str, dict[str, Candidate]], title: str, path: Path) -> None:
    """Every group in a style of its own, the first as a line."""
    mpl.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for (label, group), style in zip(groups.items(), STYLES, strict=True):
        seconds = [entry.figures['seconds'] for entry in group.values()]
        accuracy = [entry.figures['mIoU'] for entry in group.values()]
        axes.plot(seconds, accuracy, style, label=label, markersize=14 if style == '*' else 6)
        for name, x, y in zip(group, seconds, accuracy, strict=True):
            beside = style == STYLES[0]
            axes.annotate(name, (x, y), textcoords='offset points',
                          xytext=(8, -4) if beside else (0, -18), ha='left' if beside else 'center')
    axes.set(xlabel='seconds per photograph of 8 megapixels', ylabel='mIoU %', title=title)
    axes.margins(x=0.15, y=0.08)
    axes.legend(loc='lower left')
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, print, write, draw."""
    args = parse_args()

    def load(name: str) -> BaseSegmentor:
        config, _, checkpoint = name.partition('=')
        return fuse_for_inference(load_model(config, checkpoint or None, 'cpu'),
                                  backend=args.backend, dtype=args.dtype)

    labels = [short_name(name) for name in (*args.peers, *args.refined)]
    if len(set(labels)) < len(labels):
        raise SystemExit(f'{", ".join(labels)}: what a model is called, its file\'s name to the '
                         'first _, must differ from that of the others')
    network = load(args.dense)
    dense = {str(height): candidate(network, height) for height in args.heights}
    peers, refined = ({short_name(name): candidate(load(name)) for name in names}
                      for names in (args.peers, args.refined))
    groups = {'dense, by the height of its input': dense, 'dense, trained for its size': peers,
              'refined': refined}
    candidates = dense | peers | refined
    measure(candidates, args.passes)
    facts = machine(torch.device('cpu'))
    keys = list(next(iter(dense.values())).figures)
    table = Table('', *keys)
    for name, entry in candidates.items():
        table.add_row(name, *(f'{entry.figures[key]:.2f}' for key in keys))
    Console(width=160).print(table)
    args.out.with_suffix('.json').write_text(json.dumps(dict(
        machine=facts, backend=args.backend, dtype=args.dtype,
        rows={name: entry.figures for name, entry in candidates.items()}), indent=2) + '\n')
    draw(groups, f'HRF, {facts["device"]}', args.out)


if __name__ == '__main__':
    main()
