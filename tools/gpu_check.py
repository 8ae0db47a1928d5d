"""What cannot be checked without a GPU, in one call: oracle tests, engines, the five baselines.

Runs the tests marked `gpu` (sparse layers against float64 dense convolutions). Times the sparse
U-Net by every engine: spconv, dense convolutions, auto. Then each dense high-resolution baseline
against SparseRefine, without and with the dense networks of both replayed from CUDA graphs: random
weights, batch norms folded, channels last, built-in scenes, masks of the paper's density. Writes
docs/benchmarks/GPU_NAME.json and a table beside the paper's ratios, .md, after each step; what
fails, for memory or for the range of half precision, is noted with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import stop

if TYPE_CHECKING:  # imported late below, so that -h is fast
    import torch

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs' / 'sparserefine'
BASELINES = ('hrnet', 'segformer', 'mask2former_t', 'mask2former_l', 'segnext')
CHANNELS = (32, 64, 128, 256, 512, 1024)
ENGINES = ('sparse', 'dense', 'auto')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--baselines', nargs='+', choices=BASELINES, default=list(BASELINES))
    parser.add_argument('--batch-size', type=int, nargs='+', default=[1, 4], metavar='B')
    parser.add_argument('--precision', nargs='+', default=['fp16', 'fp32'],
                        choices=('fp16', 'fp32'))
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'))
    parser.add_argument('--iterations', type=int, default=30)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--no-tests', action='store_true', help='only the benchmark')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'benchmarks',
                        help='folder of the JSON and the table')
    return parser.parse_args()


def run_tests() -> bool:
    """The tests marked `gpu`; whether they passed."""
    return subprocess.run([sys.executable, '-m', 'pytest', '-m', 'gpu', '-q', 'tests'],
                          cwd=ROOT).returncode == 0


def measure_engines(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """The sparse U-Net by every engine, at every depth, precision and batch size."""
    import torch

    from mmsparse.engine.benchmark import compare_engines, thin_bands

    rows = []
    for stages in (5, 6):
        for precision in args.precision:
            for batch_size in args.batch_size:
                mask = thin_bands(tuple(args.shape), 0.118, batch_size)
                dtype = dict(fp16=torch.float16, fp32=torch.float32)[precision]
                case = dict(stages=stages, precision=precision, batch_size=batch_size)
                try:
                    times = compare_engines(CHANNELS[:stages], mask, ENGINES, device=device,
                                            dtype=dtype, iterations=args.iterations)
                except torch.OutOfMemoryError:
                    times = {}
                rows.append(case | times)
    return rows


def measure(name: str, args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One baseline, dense against refined, at every precision and batch size."""
    import torch

    from mmsparse.engine.baselines import BASELINES, Variant, compare, load_models
    from mmsparse.engine.cuda_graph import graphed_inference

    baseline, size = BASELINES[name], tuple(args.shape)
    kinds = ('dense', 'refined')
    models = load_models(baseline, CONFIGS, device, [Variant(kind) for kind in kinds], size[0])
    rows = []
    for precision in args.precision:
        for batch_size in args.batch_size:
            case = dict(baseline=name, precision=precision, batch_size=batch_size)
            options = dict(batch_size=batch_size, precision=precision, warmup=5,
                           iterations=args.iterations)
            try:
                pair = compare(models, baseline.density, size, **options)
                row = case | dict(
                    speedup=pair.speedup('refined'), overhead=pair.overhead('refined'),
                    **{kind: pair.fastest(kind).as_dict() for kind in kinds})
                if device.type == 'cuda':
                    with contextlib.ExitStack() as stack:
                        for model in models.values():
                            stack.enter_context(graphed_inference(model))
                        pair = compare(models, baseline.density, size, **options)
                    row |= dict(
                        graphed_speedup=pair.speedup('refined'),
                        graphed={kind: pair.fastest(kind).as_dict() for kind in kinds})
            except (torch.OutOfMemoryError, ValueError) as error:
                # half precision may be too small a range for random weights
                row = case | dict(failed=str(error).splitlines()[0])
                torch.cuda.empty_cache()
            rows.append(row)
    return rows


def engine_table(rows: list[dict[str, Any]]) -> list[str]:
    """The engines beside each other, in Markdown."""
    lines = ['| stages | precision | batch | spconv ms | dense ms | auto ms '
             '| peak MiB, spconv / dense / auto | difference of auto |',
             '|---|---|---|---|---|---|---|---|']
    for row in rows:
        head = f'| {row["stages"]} | {row["precision"]} | {row["batch_size"]} '
        if 'auto' not in row:
            lines.append(f'{head}| out of memory | | | | |')
            continue
        times = ' | '.join(f'{row[engine]["ms"]:.1f}' for engine in ENGINES)
        peaks = ' / '.join(f'{row[engine]["peak_mib"]:.0f}' for engine in ENGINES)
        lines.append(f'{head}| {times} | {peaks} | {row["auto"]["difference"]:.0e} |')
    return lines


def report(summary: dict[str, Any]) -> str:
    """The tables, the baselines beside the paper's ratios, in Markdown."""
    from mmsparse.engine.baselines import BASELINES

    facts, shape = summary['machine'], summary['shape']
    lines = [
        f'# SparseRefine on {facts["device"]}', '',
        f'Image {shape[0]}x{shape[1]}, random weights, masks of the density in the paper, in '
        f'bands; torch {facts["torch"]}, {facts["engine"]}. '
        f'Oracle tests: {summary["tests"]}.',
        'Written by `tools/gpu_check.py`; milliseconds, medians, measured in turns.', '',
        '## The sparse U-Net by engine, 11.8 % active, per batch', '',
        *engine_table(summary['engines']), '',
        '## Dense inference against SparseRefine, per image', '',
        '| baseline | precision | batch | dense ms | SparseRefine ms | of it low resolution '
        '| U-Net | peak MiB, dense / SparseRefine | speed-up | with CUDA graphs: dense ms '
        '| SparseRefine ms | speed-up | paper, RTX 3090 |',
        '|---|---|---|---|---|---|---|---|---|---|---|---|---|']
    for row in summary['results']:
        head = f'| {row["baseline"]} | {row["precision"]} | {row["batch_size"]} '
        paper = BASELINES[row['baseline']].paper[row['precision']].get(row['batch_size'])
        paper = f'{paper:.2f}x' if paper else ''
        if 'failed' in row:
            lines.append(f'{head}| {row["failed"]} | | | | | | | | | {paper} |')
            continue
        dense, refined = row['dense'], row['refined']
        graphed = ' | | '
        if 'graphed' in row:
            graphed = ' | '.join([
                *(f'{row["graphed"][kind]["milliseconds"]:.1f}' for kind in ('dense', 'refined')),
                f'**{row["graphed_speedup"]:.2f}x**'])
        lines.append(
            f'{head}| {dense["milliseconds"]:.1f} | {refined["milliseconds"]:.1f} '
            f'| {refined["stages"]["low-resolution pass"]:.1f} | {refined["stages"]["U-Net"]:.1f} '
            f'| {dense["peak_mib"]:.0f} / {refined["peak_mib"]:.0f} '
            f'| **{row["speedup"]:.2f}x** | {graphed} | {paper} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Test, measure, write; exit code 1 if a test failed."""
    args = parse_args()
    import torch

    from mmsparse.engine.machine import machine

    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        stop('no CUDA device here; --device cpu --precision fp32 shows that the script runs')
    facts = machine(device)
    passed = None if args.no_tests else run_tests()
    tests = {None: 'not run', True: 'passed', False: 'FAILED'}[passed]
    name = re.sub(r'\W+', '-', facts['device']).strip('-').lower()
    args.out.mkdir(parents=True, exist_ok=True)
    summary = dict(machine=facts, shape=list(args.shape), tests=tests, results=[],
                   engines=measure_engines(args, device))
    for baseline in args.baselines:
        print(baseline, flush=True)
        summary['results'] += measure(baseline, args, device)
        gc.collect()
        if device.type == 'cuda':
            torch.cuda.empty_cache()
        (args.out / f'{name}.json').write_text(json.dumps(summary, indent=2) + '\n')
        table = report(summary)
        (args.out / f'{name}.md').write_text(table)
    print(table)
    print(f'written to {args.out / name}.json and .md')
    sys.exit(passed is False)


if __name__ == '__main__':
    main()
