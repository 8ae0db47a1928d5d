"""Time models on the same images, in turns: in total, by stage, with their cost and memory.

The first config is what the others are compared with; name a dense high-resolution config first and
SparseRefine configs after it. Without checkpoints the weights are random: then give --density, or
what a selector chooses means nothing. With checkpoints, --backend and --dtype are also judged by
the share of the pixels of four built-in scenes that they give other classes.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import (
    add_backend_options,
    add_cfg_options,
    check_config,
    find_checkpoint,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    from rich.table import Table

    from mmsparse.engine.benchmark import Measurement


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='config files, or mmsparse::sparserefine/X.py')
    parser.add_argument('--checkpoints', nargs='+', default=[],
                        help='one per config, in their order; without, the weights are '
                             'random, or those of mmsparse://NAME of the zoo')
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'),
                        help='size of the images (default: 1024 2048)')
    parser.add_argument('--batch-size', type=int, nargs='+', default=[1], metavar='B')
    parser.add_argument('--precision', nargs='+', default=['fp32'], choices=('fp32', 'fp16'))
    parser.add_argument('--mode', nargs='+', choices=('predict', 'forward', 'paper'),
                        default=['predict'],
                        help="mmseg's predict (default); the network alone; or from an image in "
                             'main memory to its classes there, as real-time papers time it')
    parser.add_argument('--density', type=float,
                        help='refine this share of the pixels, in thin bands, whatever the '
                             'selector chooses')
    parser.add_argument('--fuse', action='store_true',
                        help='fold batch norms into convolutions and use channels last')
    add_backend_options(parser)
    parser.add_argument('--iterations', type=int, default=20, help='timed passes of each model')
    parser.add_argument('--warmup', type=int, default=3, help='passes before them')
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.checkpoints and len(args.checkpoints) != len(args.configs):
        parser.error(f'{len(args.configs)} configs but {len(args.checkpoints)} checkpoints')
    for name in ('iterations', 'warmup'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, got {getattr(args, name)}')
    if min([*args.batch_size, *args.shape]) < 1:
        parser.error('--batch-size and --shape must be positive')
    if not args.fuse and (args.backend, args.dtype) != ('torch', 'float32'):
        parser.error('--backend and --dtype need --fuse')
    if args.backend == 'openvino' and 'forward' in args.mode:
        parser.error('--backend openvino computes whole networks, not --mode forward')
    if args.density is not None and not 0 < args.density <= 1:
        parser.error(f'--density must be a share of the pixels in (0, 1], got {args.density}')
    return args


def result_tables(rows: list[Measurement], parameters: dict[str, int], changed: dict[str, float],
                  title: str) -> list[Table]:
    """Models below each other: totals, and the stages of those that have them.

    ``changed`` is the share of pixels, by model, whose class another precision changed.
    """
    from rich.table import Table

    def table(title: str, *names: str) -> Table:
        table = Table('model', title=title)
        for name in ('mode', 'batch', 'precision', *names):
            table.add_column(name, justify='right')
        return table

    totals = table(title, 'ms / image', 'p95', 'speed', 'refined', 'parameters', 'GMACs',
                   'peak MiB', *(['other classes'] if changed else []))
    titles = list(dict.fromkeys(title for row in rows for title in row.stages))
    stages = table('ms / image by stage, each with the device synchronized', *titles)
    base: dict[tuple, float] = {}
    for row in rows:
        first = base.setdefault((row.mode, row.batch_size, row.precision), row.milliseconds)
        head = row.name, row.mode, str(row.batch_size), row.precision
        totals.add_row(
            *head, f'{row.milliseconds:.1f}', f'{row.p95:.1f}', f'{first / row.milliseconds:.2f}x',
            '' if row.density is None else f'{row.density:.1%}', f'{parameters[row.name]:,}',
            '' if row.gmacs is None else f'{row.gmacs:.1f}', f'{row.peak_mib:.0f}',
            *([f'{changed[row.name]:.2%}'] if changed else []))
        if row.stages:
            stages.add_row(*head, *(f'{row.stages.get(t, 0):.1f}' for t in titles))
    return [totals, stages] if titles else [totals]


def main() -> None:
    """Build the models, measure, print the table, write the JSON."""
    args = parse_args()
    for config in args.configs:
        check_config(config)
    checkpoints = args.checkpoints or [None] * len(args.configs)
    checkpoints = [find_checkpoint(*names, required=False)
                   for names in zip(args.configs, checkpoints, strict=True)]

    import torch
    from rich.console import Console

    from mmsparse.engine import progress_display
    from mmsparse.engine.benchmark import benchmark, scene_classes
    from mmsparse.engine.fusion import fuse_for_inference
    from mmsparse.engine.loading import load_model
    from mmsparse.engine.machine import machine
    from mmsparse.models.sparserefine import SparseRefineSegmentor
    from mmsparse.precision import computes_bfloat16

    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if device.type != 'cuda' and 'fp16' in args.precision:
        stop(f'--precision fp16 needs a CUDA device, got {device}')
    if device.type != 'cpu' and (args.backend, args.dtype) != ('torch', 'float32'):
        stop(f'--backend and --dtype are for the CPU, got {device}')
    if args.dtype == 'bfloat16' and not computes_bfloat16():
        stop('--dtype bfloat16: this CPU has no instructions for it and would compute in float32')
    with one_line_errors():
        models = {Path(config).stem: load_model(config, checkpoint, device, args.cfg_options)
                  for config, checkpoint in zip(args.configs, checkpoints, strict=True)}
    if len(models) < len(args.configs):
        stop('two of the configs have the same file name')
    parameters = {name: sum(p.numel() for part, p in model.named_parameters()
                            if not part.startswith('auxiliary_head'))
                  for name, model in models.items()}
    changed: dict[str, float] = {}
    size = tuple(args.shape)
    if args.fuse:
        trained = (args.backend, args.dtype) != ('torch', 'float32') and None not in checkpoints
        before = {name: scene_classes(model, size) for name, model in models.items()
                  if trained}
        models = {name: fuse_for_inference(model, backend=args.backend, dtype=args.dtype)
                  for name, model in models.items()}
        changed = {name: float((scene_classes(models[name], size) != classes).float().mean())
                   for name, classes in before.items()}
    refining = [name for name, model in models.items()
                if isinstance(model, SparseRefineSegmentor)]
    densities = {} if args.density is None else dict.fromkeys(refining, args.density)
    rows = []
    clocked = len(refining) * max(args.iterations // 2, min(args.iterations, 3))
    runs = list(product(args.mode, args.batch_size, args.precision))
    passes = len(runs) * len(models) * (args.warmup + args.iterations) + clocked * sum(
        mode == 'predict' for mode, *_ in runs)
    with progress_display() as progress:
        task = progress.add_task('Measure', total=passes, note='')
        for mode, batch_size, precision in runs:
            rows += benchmark(
                models, size=size, batch_size=batch_size, precision=precision,
                densities=densities, mode=mode, iterations=args.iterations, warmup=args.warmup,
                progress=lambda: progress.advance(task))
    facts = machine(device)
    height, width = args.shape
    title = (f'{height}x{width}, {facts["device"]}, torch {facts["torch"]}, '
             f'{facts["engine"]}')
    console = Console(width=None if Console().is_terminal else 160)
    for table in result_tables(rows, parameters, changed, title):
        console.print(table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        summary = dict(machine=facts, shape=list(args.shape), iterations=args.iterations,
                       fused=args.fuse, backend=args.backend, dtype=args.dtype,
                       parameters=parameters,
                       random_weights=None in checkpoints,
                       other_classes=changed, results=[r.as_dict() for r in rows])
        args.out.write_text(json.dumps(summary, indent=2) + '\n')


if __name__ == '__main__':
    main()
