"""When refinement pays: plots of docs/benchmarks/, from the summary of `make bench` and new runs.

1. Break-even: speed-up over the fastest dense inference against the share of active pixels, for the
   paper's five baselines, with the paper's U-Net and with that of sparserefine-s. The U-Nets are
   timed at every share; the other times are those of the summary.
2. Scaling: FCN-HRNet-W48, dense against refined, from 0.5 to 24 megapixels, and in batches at
   512x1024, with the peak memory of both. A size whose dense inference would need more than 70 %
   of the free memory is left out of the dense line.

Writes break_even.png, scaling.png and plots.json. About 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / 'docs' / 'benchmarks'
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
# The sparse U-Nets, and which of them a baseline has beside the light one.
UNETS = {'5': (32, 64, 128, 256, 512), '6': (32, 64, 128, 256, 512, 1024), 's': (16, 32, 64, 128)}
STAGES = dict(hrnet='6', segformer='6', mask2former_t='5', mask2former_l='6', segnext='6')
SIZES = ((512, 1024), (704, 1408), (1024, 2048), (1408, 2816), (2048, 4096), (3456, 6912))
BATCHES = (1, 2, 4)
SCALED = 'dense', 'refined', 'refined-s'


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=('break_even', 'scaling'), nargs='+',
                        default=('break_even', 'scaling'),
                        help='what to measure; plots.json keeps its other figures')
    parser.add_argument('--summary', type=Path, default=OUT / 'cpu.json', help='of `make bench`')
    parser.add_argument('--shares', type=float, nargs='+', default=SHARES, metavar='SHARE')
    parser.add_argument('--sizes', type=int, nargs='+', default=range(len(SIZES)), metavar='I',
                        help=f'which of {SIZES}, from 0')
    parser.add_argument('--batch-size', type=int, nargs='+', default=BATCHES, metavar='B')
    parser.add_argument('--out', type=Path, default=OUT)
    return parser.parse_args()


def unet_times(size: tuple[int, int], shares: list[float]) -> dict[str, dict[str, float]]:
    """Milliseconds of the sparse U-Nets, engine='auto', by name and share of active pixels.

    In the precision of the fastest refinement.
    """
    import torch

    from mmsparse.engine.baselines import variants
    from mmsparse.engine.benchmark import compare_engines, thin_bands

    device = torch.device('cpu')
    dtype = getattr(torch, variants(device)[-1].dtype)
    times: dict[str, dict[str, float]] = {}
    for name, channels in UNETS.items():
        times[name] = {}
        for share in shares:
            rows = compare_engines(channels, thin_bands(size, share), ('auto',),
                                   device=device, dtype=dtype, iterations=2)
            times[name][str(share)] = rows['auto']['ms']
            print(f'U-Net {name}, {share:.0%} active: {rows["auto"]["ms"]:.0f} ms', flush=True)
    return times


def break_even(summary: dict[str, Any], times: dict[str, dict[str, float]]
               ) -> dict[str, dict[str, Any]]:
    """Speed-up of every baseline at every share, and the share at which it falls to 1.

    Of ``sparserefine-s`` under the name with ``_s``. Between two shares the U-Net's time is taken
    to be linear; 0 if it is below 1 at every share, ``None`` if it stays above.
    """
    curves = {}
    for name, stages in STAGES.items():
        pair = summary.get(f'pair_{name}')
        if pair is None:
            continue
        dense = pair['dense']['milliseconds']
        for suffix, model, unet in (('', 'refined', stages), ('_s', 'refined-s', 's')):
            refined = pair[model]
            rest = refined['milliseconds'] - refined['stages']['U-Net']
            line = [(float(share), ms) for share, ms in times[unet].items()]
            even = 0.0 if rest + line[0][1] > dense else None
            for (s0, t0), (s1, t1) in itertools.pairwise(line):
                if rest + t0 <= dense < rest + t1:
                    even = s0 + (s1 - s0) * (dense - rest - t0) / (t1 - t0)
            curves[name + suffix] = dict(break_even=even,
                                         speedup={str(s): dense / (rest + ms) for s, ms in line})
    return curves


def scaling(cases: list[tuple[tuple[int, int], int]]) -> Iterator[dict[str, Any]]:
    """HRNet-W48, dense and refined, all in the fastest way, at sizes and batch sizes in turn."""
    import psutil
    import torch

    from mmsparse.engine.baselines import BASELINES, Variant, load_models, variants
    from mmsparse.engine.benchmark import benchmark

    device, need = torch.device('cpu'), 0.0
    density = BASELINES['hrnet'].density
    how = variants(device)[-1][1:]
    loaded = load_models(BASELINES['hrnet'], ROOT / 'configs' / 'sparserefine', device,
                         [Variant(model, *how) for model in SCALED])
    models = {name.split()[0]: model for name, model in loaded.items()}
    for size, batch_size in cases:
        pixels = size[0] * size[1] * batch_size
        fits = need * pixels < 0.7 * psutil.virtual_memory().available
        refiners = dict.fromkeys(SCALED[1:], density)
        chosen = models if fits else {name: models[name] for name in refiners}
        measurements = benchmark(chosen, size=size, batch_size=batch_size, densities=refiners,
                                 warmup=1, iterations=3 if pixels < 3e6 else 1)
        row: dict[str, Any] = dict(size=list(size), batch_size=batch_size)
        row |= {m.name: dict(ms=m.milliseconds, peak_mib=m.peak_mib) for m in measurements}
        if fits:
            need = max(need, row['dense']['peak_mib'] * 2**20 / pixels)
        print(row, flush=True)
        yield row


def plot_break_even(curves: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """One line per baseline, dashed for sparserefine-s; a dot at the paper's share."""
    import matplotlib as mpl

    mpl.use('Agg')
    import matplotlib.pyplot as plt
    import numpy as np

    from mmsparse.engine.baselines import BASELINES

    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for number, name in enumerate(n for n in curves if not n.endswith('_s')):
        for suffix, style in (('', '-'), ('_s', '--')):
            curve, paper = curves[name + suffix]['speedup'], BASELINES[name].density
            shares, speedups = [float(s) for s in curve], list(curve.values())
            label = None if suffix else BASELINES[name].name
            axes.plot(shares, speedups, style, color=f'C{number}', label=label)
            axes.plot(paper, np.interp(paper, shares, speedups), 'o', color=f'C{number}')
    axes.axhline(1, color='black', linewidth=0.8)
    axes.set(xscale='log', yscale='log', xlabel='share of active pixels (dot: in the paper)',
             ylabel='speed-up over the fastest dense inference', title=title)
    ticks = [0.5, 1, 2, 4, 8]
    axes.set_yticks(ticks, [f'{t:g}x' for t in ticks])
    axes.set_xticks(shares, [f'{s:.0%}' for s in shares])
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_scaling(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Time and peak memory against megapixels at batch 1, and against the batch size."""
    import matplotlib as mpl

    mpl.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout='constrained', sharex='col')
    single = [r for r in rows if r['batch_size'] == 1]
    batches = [r for r in rows if r['size'] == single[0]['size']]
    megapixels = ('megapixels, batch 1', single, lambda r: r['size'][0] * r['size'][1] / 1e6)
    images = (f'batch size at {single[0]["size"][0]}x{single[0]["size"][1]}', batches,
              lambda r: r['batch_size'])
    for column, (xlabel, group, x) in enumerate((megapixels, images)):
        for model in SCALED:
            measured = [r for r in group if model in r]
            axes[0, column].plot([x(r) for r in measured],
                                 [r[model]['ms'] / 1000 for r in measured], 'o-', label=model)
            axes[1, column].plot([x(r) for r in measured],
                                 [r[model]['peak_mib'] / 1024 for r in measured], 'o-', label=model)
        axes[1, column].set_xlabel(xlabel)
        for row, ylabel in enumerate(('seconds per image', 'peak memory, GiB')):
            axes[row, column].set(ylabel=ylabel, ylim=(0, None))
            axes[row, column].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, write the figures, draw."""
    args = parse_args()
    if not args.summary.is_file():
        raise SystemExit(f'bench_plots.py: {args.summary} does not exist; `make bench` writes '
                         'work_dirs/bench/summary.json')
    import torch

    from mmsparse.engine.machine import machine

    summary = json.loads(args.summary.read_text())
    facts = machine(torch.device('cpu'))
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / 'plots.json'
    figures = json.loads(file.read_text()) if file.is_file() else {}
    if figures.get('machine') != facts:
        figures = dict(machine=facts)
    if 'break_even' in args.only:
        times = unet_times(tuple(summary['shape']), args.shares)
        figures |= dict(summary_machine=summary['machine'], unet_ms=times,
                        break_even=break_even(summary, times))
        plot_break_even(figures['break_even'], f'SparseRefine, {facts["device"]}',
                        args.out / 'break_even.png')
        file.write_text(json.dumps(figures, indent=2) + '\n')
    if 'scaling' in args.only:
        sizes = [SIZES[i] for i in args.sizes]
        batches = [(sizes[0], b) for b in args.batch_size if b > 1]
        figures['scaling'] = []
        for row in scaling([(size, 1) for size in sizes] + batches):
            figures['scaling'].append(row)
            # At once: a size too large for the memory ends the process, not what came before.
            file.write_text(json.dumps(figures, indent=2) + '\n')
            plot_scaling(figures['scaling'], f'FCN-HRNet-W48, {facts["device"]}',
                         args.out / 'scaling.png')
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
