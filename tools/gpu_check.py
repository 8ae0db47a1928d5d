"""What cannot be checked without a GPU, in one call: oracle tests and the paper's five baselines.

Runs the tests marked `gpu` (sparse layers by implicit GEMM against float64 dense convolutions),
then times each dense high-resolution baseline against SparseRefine: random weights, built-in
scenes, masks made to the paper's density. Writes docs/benchmarks/GPU_NAME.json and a table beside
the paper's ratios, .md, after each baseline; one that does not fit into memory is noted as such.
"""

from __future__ import annotations

import argparse
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
# Schedule in the name of the dense config; density; speed-up in the paper (ECCV 2024, supplement
# Tables 1 and 3, RTX 3090) by precision and batch size.
BASELINES: dict[str, tuple[str, float, dict[str, dict[int, float]]]] = {
    'fcn-hr48': ('4xb2-80k', 0.118, {'fp16': {1: 1.07, 4: 1.65}, 'fp32': {1: 1.37, 4: 1.50}}),
    'segformer-mit-b5': (
        '8xb1-160k', 0.139, {'fp16': {1: 2.29, 4: 3.65}, 'fp32': {1: 3.40, 4: 3.78}}),
    'mask2former-swin-t': (
        '8xb2-90k', 0.241, {'fp16': {1: 1.09, 4: 1.49}, 'fp32': {1: 1.40, 4: 1.48}}),
    'mask2former-swin-l': (
        '8xb2-90k', 0.350, {'fp16': {1: 1.49, 4: 1.82}, 'fp32': {1: 1.79, 4: 1.97}}),
    'segnext-mscan-l': (
        '8xb1-160k', 0.100, {'fp16': {1: 1.50, 4: 1.70}, 'fp32': {1: 1.45, 4: 1.59}}),
}


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


def measure(name: str, args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One baseline, dense against refined, at every precision and batch size."""
    import torch

    from mmsparse.engine.benchmark import benchmark, load_model

    schedule, density, _ = BASELINES[name]
    # An LR size given in pixels belongs to the paper's image size.
    scale = args.shape[0] / 1024
    files = {'dense': f'{name}_{schedule}_cityscapes-1024x2048.py',
             'refined': f'sparserefine_{name}_8xb4-46k_cityscapes-1024x2048.py'}
    models = {kind: load_model(str(CONFIGS / file), None, device) for kind, file in files.items()}
    if models['refined'].lr_size is not None:
        models['refined'].lr_size = tuple(round(n * scale) for n in models['refined'].lr_size)
    rows = []
    for precision in args.precision:
        for batch_size in args.batch_size:
            case = dict(baseline=name, precision=precision, batch_size=batch_size)
            try:
                dense, refined = benchmark(
                    models, size=tuple(args.shape), batch_size=batch_size, precision=precision,
                    densities=dict(refined=density), iterations=args.iterations, warmup=5)
            except torch.OutOfMemoryError:
                rows.append(case | dict(out_of_memory=True))
                torch.cuda.empty_cache()
                continue
            rows.append(case | dict(
                speedup=dense.milliseconds / refined.milliseconds, dense=dense.as_dict(),
                refined=refined.as_dict()))
    return rows


def report(rows: list[dict[str, Any]], facts: dict[str, str], tests: str, shape: list[int]) -> str:
    """The table beside the paper's ratios, in Markdown."""
    lines = [
        f'# SparseRefine against dense inference, {facts["device"]}', '',
        f'Image {shape[0]}x{shape[1]}, random weights, masks of the density in the paper, in bands '
        f'around class boundaries; torch {facts["torch"]}, {facts["engine"]}. '
        f'Oracle tests: {tests}.',
        'Written by `tools/gpu_check.py`; milliseconds per image, medians, measured in turns.', '',
        '| baseline | precision | batch | dense ms | SparseRefine ms | of it low resolution '
        '| U-Net | peak MiB, dense / SparseRefine | speed-up | paper (RTX 3090) |',
        '|---|---|---|---|---|---|---|---|---|---|']
    for row in rows:
        head = f'| {row["baseline"]} | {row["precision"]} | {row["batch_size"]} '
        paper = BASELINES[row['baseline']][2][row['precision']].get(row['batch_size'])
        paper = f'{paper:.2f}x' if paper else ''
        if row.get('out_of_memory'):
            lines.append(f'{head}| out of memory | | | | | | {paper} |')
            continue
        dense, refined = row['dense'], row['refined']
        lines.append(
            f'{head}| {dense["milliseconds"]:.1f} | {refined["milliseconds"]:.1f} '
            f'| {refined["stages"]["low-resolution pass"]:.1f} | {refined["stages"]["U-Net"]:.1f} '
            f'| {dense["peak_mib"]:.0f} / {refined["peak_mib"]:.0f} '
            f'| **{row["speedup"]:.2f}x** | {paper} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Test, measure, write; exit code 1 if a test failed."""
    args = parse_args()
    import torch

    import mmsparse  # noqa: F401  mends the framework before configs are read
    from mmsparse.engine.benchmark import machine

    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        stop('no CUDA device here; --device cpu --precision fp32 shows that the script runs')
    facts = machine(device)
    passed = None if args.no_tests else run_tests()
    tests = {None: 'not run', True: 'passed', False: 'FAILED'}[passed]
    name = re.sub(r'\W+', '-', facts['device']).strip('-').lower()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for baseline in args.baselines:
        print(baseline, flush=True)
        rows += measure(baseline, args, device)
        gc.collect()
        if device.type == 'cuda':
            torch.cuda.empty_cache()
        summary = dict(machine=facts, shape=list(args.shape), tests=tests, results=rows)
        (args.out / f'{name}.json').write_text(json.dumps(summary, indent=2) + '\n')
        table = report(rows, facts, tests, list(args.shape))
        (args.out / f'{name}.md').write_text(table)
    print(table)
    print(f'written to {args.out / name}.json and .md')
    sys.exit(passed is False)


if __name__ == '__main__':
    main()
