"""How much faster this package computes the same functions; `make bench`.

The sparse U-Net of SparseRefine, 5 and 6 stages, random weights, at 1024x2048: every level through
spconv (a faithful port) against engine='auto', in turns, in one run. Two kinds of masks of 11.8 %:
thin bands that fill the coarse levels, and wide ones around the class boundaries of a built-in
scene. Prints a table and writes work_dirs/bench/summary.json; the keys without a suffix are those
of the thin bands.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

SIZE, DENSITY = (1024, 2048), 0.118  # HRNet-W48's, SparseRefine supplement Table 1


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--stages', type=int, nargs='+', choices=(5, 6), default=[5, 6])
    parser.add_argument('--masks', nargs='+', choices=('bands', 'scene'),
                        default=['bands', 'scene'])
    parser.add_argument('--shape', type=int, nargs=2, default=SIZE, metavar=('H', 'W'))
    parser.add_argument('--iterations', type=int, default=5, help='timed passes of each engine')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/summary.json'))
    return parser.parse_args()


def measure(stages: int, mask, iterations: int) -> dict[str, float]:
    """Median seconds and peak memory of both engines, and how far their results differ."""
    import torch

    from mmsparse.engine.benchmark import peak_memory
    from mmsparse.registry import MODELS
    from mmsparse.sparse import SparseMap

    torch.manual_seed(0)
    channels = (32, 64, 128, 256, 512, 1024)[:stages]
    net = MODELS.build(dict(type='mmsparse.SparseUNet', channels=channels)).eval()
    pixels = SparseMap.from_mask(torch.randn(1, 3, *mask.shape[1:]), mask)
    seconds, results = dict(sparse=[], auto=[]), {}
    peaks = dict.fromkeys(seconds, 0.0)
    with torch.no_grad():
        for step in range(-1, iterations):
            for engine in sorted(seconds, reverse=step % 2 == 0):
                net.engine = engine
                start = time.perf_counter()
                results[engine] = net(pixels)
                if step >= 0:
                    seconds[engine].append(time.perf_counter() - start)
        for engine in seconds:
            net.engine = engine
            peaks[engine] = peak_memory(lambda: net(pixels), torch.device('cpu')) / 2**20
    difference = (results['auto'] - results['sparse']).norm() / results['sparse'].norm()
    times = {engine: statistics.median(values) for engine, values in seconds.items()}
    return dict(speedup=times['sparse'] / times['auto'], sparse_s=times['sparse'],
                auto_s=times['auto'], memory_ratio=peaks['auto'] / peaks['sparse'],
                sparse_mib=peaks['sparse'], auto_mib=peaks['auto'],
                gmacs=net.macs(mask) / 1e9, difference=float(difference))


def main() -> None:
    """Measure, print, write."""
    args = parse_args()
    import torch
    from rich.console import Console
    from rich.table import Table

    from mmsparse.datasets.scenes import render_label
    from mmsparse.engine.benchmark import boundary_mask, machine, thin_bands

    size = tuple(args.shape)
    masks = {
        'bands': lambda: thin_bands(size, DENSITY),
        'scene': lambda: torch.from_numpy(boundary_mask(render_label(0, size), DENSITY))[None],
    }
    facts = machine(torch.device('cpu'))
    table = Table(title=f'Sparse U-Net, {size[0]}x{size[1]}, {DENSITY:.1%} active, '
                        f'{facts["device"]}, torch {facts["torch"]}')
    for name in ('mask', 'stages', 'GMACs', 'spconv s', 'auto s', 'speed', 'peak MiB',
                 'difference'):
        table.add_column(name, justify='right')
    summary: dict = dict(machine=facts, shape=list(size), density=DENSITY)
    for kind in args.masks:
        mask = masks[kind]()
        suffix = '' if kind == 'bands' else f'_{kind}'
        for stages in args.stages:
            row = measure(stages, mask, args.iterations)
            summary[f'unet_speedup_{stages}{suffix}'] = row['speedup']
            summary[f'unet_memory_ratio_{stages}{suffix}'] = row['memory_ratio']
            summary[f'unet_{stages}{suffix}'] = row
            table.add_row(kind, str(stages), f'{row["gmacs"]:.0f}', f'{row["sparse_s"]:.2f}',
                          f'{row["auto_s"]:.2f}', f'{row["speedup"]:.2f}x',
                          f'{row["sparse_mib"]:.0f} -> {row["auto_mib"]:.0f}',
                          f'{row["difference"]:.0e}')
    ratios = [summary[f'unet_memory_ratio_{n}'] for n in args.stages if 'bands' in args.masks]
    if ratios:
        summary['unet_memory_ratio'] = max(ratios)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(summary, indent=2) + '\n')
    Console(width=None if Console().is_terminal else 130).print(table)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
