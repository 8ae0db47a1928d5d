"""How much faster this package is, in ratios of one run; `make bench`.

1. The sparse U-Net of SparseRefine, 5 and 6 stages, 11.8 % of the pixels in bands: every level
   through spconv (a faithful port) against engine='auto'; once more with finer bands, which fill
   the coarse levels (keys ending in _fine).
2. The paper's five baselines end to end: the dense high-resolution model against SparseRefine,
   both with batch norms folded and channels last, masks of the paper's density. Beside each time
   its floor: the low-resolution pass, and the U-Net's multiply-accumulates at the rate of the
   machine's dense convolutions.

Random weights, batch 1, float32, on the CPU, what is compared in turns. Writes
work_dirs/bench/summary.json and sets the ratios beside the committed ones of
docs/benchmarks/cpu.json. The five baselines take about 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsparse.engine.baselines import PairMeasurement

ROOT = Path(__file__).resolve().parent.parent
DENSITY = 0.118  # HRNet-W48's, SparseRefine supplement Table 1
CHANNELS = (32, 64, 128, 256, 512, 1024)
# Distance of the random values that make the bands, in pixels; suffix of the keys.
MASKS = {'': 40, '_fine': 16}
UNETS = {'unet_5': 5, 'unet_6': 6}
PAIRS = ('hrnet', 'segformer', 'mask2former_t', 'mask2former_l', 'segnext')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=(*UNETS, *PAIRS), default=(*UNETS, *PAIRS),
                        help='what to measure; a summary that exists keeps its other figures')
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'))
    parser.add_argument('--iterations', type=int, default=3, help='timed passes of each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/summary.json'))
    parser.add_argument('--committed', type=Path, default=ROOT / 'docs' / 'benchmarks' / 'cpu.json',
                        help='summary to compare with')
    return parser.parse_args()


def measure_unet(name: str, size: tuple[int, int], iterations: int) -> dict[str, Any]:
    """spconv on every level against engine='auto', on both kinds of masks."""
    import torch

    from mmsparse.engine.benchmark import compare_engines, thin_bands

    figures: dict[str, Any] = {}
    for suffix, spacing in MASKS.items():
        mask = thin_bands(size, DENSITY, spacing=spacing)
        rows = compare_engines(CHANNELS[:UNETS[name]], mask, ('sparse', 'auto'),
                               device=torch.device('cpu'), iterations=iterations)
        figures[f'{name.replace("_", "_speedup_")}{suffix}'] = (
            rows['sparse']['ms'] / rows['auto']['ms'])
        figures[f'{name.replace("_", "_memory_ratio_")}{suffix}'] = (
            rows['auto']['peak_mib'] / rows['sparse']['peak_mib'])
        figures[f'{name}{suffix}'] = rows
    return figures


def pair_figures(name: str, result: PairMeasurement, rate: float) -> dict[str, Any]:
    """What the summary holds of a baseline."""
    return {
        f'e2e_{name}': result.speedup,
        f'overhead_{name}': result.overhead,
        f'pair_{name}': dict(
            dense=result.dense.as_dict(), refined=result.refined.as_dict(),
            unet_gmacs=result.unet_gmacs, floor_ms=result.floor(rate))}


def summarize(summary: dict[str, Any]) -> None:
    """Add what is the worst of several figures."""
    for key, start in (('unet_memory_ratio', 'unet_memory_ratio_'), ('overhead_share', 'overhead_')):
        values = [v for k, v in summary.items()
                  if k.startswith(start) and k != key and isinstance(v, float)]
        if values:
            summary[key] = max(values)


def print_tables(summary: dict[str, Any], committed: dict[str, Any]) -> None:
    """The ratios beside the committed ones, then the baselines in detail."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 130)
    facts = summary['machine']
    table = Table('figure', title=f'{facts["device"]}, torch {facts["torch"]}, '
                                  f'{summary["shape"][0]}x{summary["shape"][1]}')
    table.add_column('now', justify='right')
    table.add_column('committed', justify='right')
    for key, value in summary.items():
        if isinstance(value, float):
            old = committed.get(key)
            table.add_row(key, f'{value:.2f}', '' if old is None else f'{old:.2f}')
    console.print(table)
    if committed and committed['machine'] != facts:
        console.print(f'committed: {committed["machine"]["device"]}, torch '
                      f'{committed["machine"]["torch"]}; ratios depend on the machine')
    table = Table('baseline', title='ms per image, U-Net in GMACs')
    for name in ('dense', 'refined', 'low resolution', 'U-Net', 'rest', 'GMACs', 'floor',
                 'above floor', 'peak MiB dense', 'refined'):
        table.add_column(name, justify='right')
    for name in PAIRS:
        if f'pair_{name}' in summary:
            row = summary[f'pair_{name}']
            dense, refined, stages = row['dense'], row['refined'], row['refined']['stages']
            low, unet = stages['low-resolution pass'], stages['U-Net']
            table.add_row(
                name, *(f'{value:.0f}' for value in (
                    dense['milliseconds'], refined['milliseconds'], low, unet,
                    sum(stages.values()) - low - unet, row['unet_gmacs'], row['floor_ms'])),
                f'{refined["milliseconds"] / row["floor_ms"]:.2f}x',
                f'{dense["peak_mib"]:.0f}', f'{refined["peak_mib"]:.0f}')
    if table.row_count:
        console.print(table)


def main() -> None:
    """Measure, print, write after every step."""
    args = parse_args()
    import torch

    import mmsparse  # noqa: F401  mends the framework before configs are read
    from mmsparse.engine.baselines import BASELINES, compare_pair, load_pair
    from mmsparse.engine.machine import dense_conv_rate, machine

    device, size = torch.device('cpu'), tuple(args.shape)
    summary: dict[str, Any] = dict(machine=machine(device), shape=list(size))
    if args.out.is_file():
        before = json.loads(args.out.read_text())
        if all(before[key] == summary[key] for key in summary):
            summary = before | summary
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        print(name, flush=True)
        if name in UNETS:
            summary |= measure_unet(name, size, args.iterations)
        else:
            rate = dense_conv_rate(device)
            models = load_pair(BASELINES[name], ROOT / 'configs' / 'sparserefine', device, size[0])
            result = compare_pair(models, BASELINES[name].density, size,
                                  iterations=args.iterations, warmup=1)
            summary |= pair_figures(name, result, rate) | dict(dense_conv_gmacs_per_s=rate)
            del models, result
            gc.collect()
        summarize(summary)
        args.out.write_text(json.dumps(summary, indent=2) + '\n')
    committed = json.loads(args.committed.read_text()) if args.committed.is_file() else {}
    print_tables(summary, committed)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
