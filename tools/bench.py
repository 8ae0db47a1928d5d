"""How much faster this package is, in ratios of one run; `make bench`.

1. The sparse U-Net of SparseRefine, 5 and 6 stages, 11.8 % of the pixels in thin bands, which fill
   the coarse levels (24, 48, 84, 100 %): every level through spconv (a faithful port) against
   engine='auto'; once more with wider bands (17, 27, 47, 79, 99 %; keys ending in _wide).
2. The paper's five baselines end to end, wide bands of the paper's density: the dense
   high-resolution model as torch and OpenVINO compute it, in float32 and, where the machine has
   instructions for it, in bfloat16; against SparseRefine, and against its lighter U-Net
   (sparserefine-s). A speed-up is over the fastest dense inference. Beside each time its floor: the
   low-resolution pass, and the U-Net's multiply-accumulates at the rate of the machine's dense
   convolutions.

Random weights, batch 1, on the CPU, what is compared in turns: the U-Nets, and the variants of a
baseline that are computed alike. Writes work_dirs/bench/summary.json, a table beside it, .md, and
sets the ratios beside the committed ones of docs/benchmarks/cpu.json. About 45 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsparse.engine.baselines import Comparison

ROOT = Path(__file__).resolve().parent.parent
DENSITY = 0.118  # HRNet-W48's, SparseRefine supplement Table 1
CHANNELS = (32, 64, 128, 256, 512, 1024)
# Distance of the random values that make the bands, in pixels; suffix of the keys.
MASKS = {'': 16, '_wide': 40}
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


def pair_figures(name: str, result: Comparison, rate: float) -> dict[str, Any]:
    """What the summary holds of a baseline."""
    figures: dict[str, Any] = {}
    for model, suffix in (('refined', ''), ('refined-s', '_s')):
        figures[f'e2e_{name}{suffix}'] = result.speedup(model)
        figures[f'overhead_{name}{suffix}'] = result.overhead(model)
    figures[f'pair_{name}'] = {
        model: result.fastest(model).as_dict() for model in ('dense', 'refined', 'refined-s')} | {
        'variants': {title: m.milliseconds for title, m in result.measurements.items()},
        'unet_gmacs': result.unet_gmacs, 'dense_conv_gmacs_per_s': rate,
        'floor_ms': {model: result.floor(model, rate) for model in result.unet_gmacs}}
    return figures


def summarize(summary: dict[str, Any]) -> None:
    """Add what is the worst of several figures."""
    worst = dict(unet_memory_ratio='unet_memory_ratio_', overhead_share='overhead_')
    for key, start in worst.items():
        values = [v for k, v in summary.items()
                  if k.startswith(start) and k != key and isinstance(v, float)]
        if values:
            summary[key] = max(values)


def ratio_rows(summary: dict[str, Any], committed: dict[str, Any]) -> list[list[str]]:
    """Every ratio beside the committed one."""
    return [[key, f'{value:.2f}', f'{committed[key]:.2f}' if key in committed else '']
            for key, value in sorted(summary.items()) if isinstance(value, float)]


def unet_rows(summary: dict[str, Any]) -> list[list[str]]:
    """The sparse U-Net by both engines."""
    rows = []
    for key in (f'{name}{suffix}' for suffix in MASKS for name in UNETS):
        if key in summary:
            port, ours = summary[key]['sparse'], summary[key]['auto']
            rows.append([key, f'{port["ms"]:.0f}', f'{ours["ms"]:.0f}',
                         f'{port["ms"] / ours["ms"]:.2f}x', f'{port["peak_mib"]:.0f}',
                         f'{ours["peak_mib"]:.0f}', f'{ours["difference"]:.0e}'])
    return rows


def dense_rows(summary: dict[str, Any]) -> list[list[str]]:
    """The baselines, and every way to compute the dense model."""
    rows = []
    for name in (name for name in PAIRS if f'pair_{name}' in summary):
        times = summary[f'pair_{name}']['variants']
        rows.append([name, *(f'{times[key]:.0f}' if key in times else '' for key in (
            'dense torch float32', 'dense torch bfloat16', 'dense openvino float32',
            'dense openvino bfloat16', 'refined torch float32')),
            *(f'{summary[f"pair_{name}"][model]["milliseconds"]:.0f}'
              for model in ('refined', 'refined-s')),
            *(f'{summary[f"e2e_{name}{suffix}"]:.2f}x' for suffix in ('', '_s'))])
    return rows


def refined_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Where the time of refinement goes."""
    rows = []
    for name in (name for name in PAIRS if f'pair_{name}' in summary):
        pair = summary[f'pair_{name}']
        for model in ('refined', 'refined-s'):
            refined, floor = pair[model], pair['floor_ms'][model]
            low, unet = (refined['stages'][x] for x in ('low-resolution pass', 'U-Net'))
            rows.append([
                name, refined['name'], f'{refined["density"]:.1%}', *(f'{x:.0f}' for x in (
                    refined['milliseconds'], low, unet,
                    sum(refined['stages'].values()) - low - unet, pair['unet_gmacs'][model],
                    pair['dense_conv_gmacs_per_s'], floor)),
                f'{refined["milliseconds"] / floor:.2f}x', f'{pair["dense"]["peak_mib"]:.0f}',
                f'{refined["peak_mib"]:.0f}'])
    return rows


RATIOS = 'figure', 'now', 'committed'
UNET = ('U-Net', 'spconv ms', 'auto ms', 'speed-up', 'spconv MiB', 'auto MiB', 'difference')
DENSE = ('baseline, ms', 'torch f32', 'torch bf16', 'OpenVINO f32', 'OpenVINO bf16',
         'SparseRefine, torch f32', 'SparseRefine, fastest', 'SparseRefine-s, fastest', 'speed-up',
         'speed-up, s')
REFINED = ('baseline', 'variant', 'refined', 'ms', 'low res.', 'U-Net', 'rest', 'U-Net GMACs',
           'GMAC/s', 'floor ms', 'of floor', 'dense MiB', 'MiB')


def print_tables(summary: dict[str, Any], committed: dict[str, Any]) -> None:
    """All of it on the console."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 150)
    for titles, rows in ((RATIOS, ratio_rows(summary, committed)), (UNET, unet_rows(summary)),
                         (DENSE, dense_rows(summary)), (REFINED, refined_rows(summary))):
        table = Table(titles[0])
        for title in titles[1:]:
            table.add_column(title, justify='right')
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(table)
    if committed and committed['machine'] != summary['machine']:
        console.print(f'committed: {committed["machine"]["device"]}, torch '
                      f'{committed["machine"]["torch"]}; ratios depend on the machine')


def markdown(summary: dict[str, Any]) -> str:
    """The tables for docs/benchmarks/."""
    def table(titles: tuple[str, ...], rows: list[list[str]]) -> list[str]:
        return [f'| {" | ".join(cells)} |' for cells in (
            titles, ['---'] * len(titles), *rows)] + ['']

    facts, (height, width) = summary['machine'], summary['shape']
    lines = [
        f'# {facts["device"]}', '',
        f'Written by `make bench`: {height}x{width}, batch 1, random weights, torch '
        f'{facts["torch"]}, {facts["engine"]}. Medians, what is compared in turns.', '',
        '## The sparse U-Net, all spconv against auto', '',
        f'{DENSITY:.1%} active in thin bands, float32; `_wide`: the same share in wider bands.', '',
        *table(UNET, unet_rows(summary)), '## Dense inference against SparseRefine', '',
        'Batch norms folded and channels last wherever torch computes. A speed-up is over the '
        'fastest dense inference.', '',
        *table(DENSE, dense_rows(summary)),
        "The fastest refinement. Floor: the low-resolution pass, and the U-Net's "
        "multiply-accumulates at the rate that the machine's dense convolutions had then.", '',
        *table(REFINED, refined_rows(summary))]
    return '\n'.join(lines)


def main() -> None:
    """Measure, print, write after every step."""
    args = parse_args()
    import torch

    from mmsparse.engine.baselines import BASELINES, compare_variants, variants
    from mmsparse.engine.machine import dense_conv_rate, machine

    device, size = torch.device('cpu'), tuple(args.shape)
    summary: dict[str, Any] = dict(machine=machine(device), shape=list(size))
    if args.out.is_file():
        before = json.loads(args.out.read_text())
        if all(before.get(key) == summary[key] for key in summary):
            summary = before | summary
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        print(name, flush=True)
        if name in UNETS:
            summary |= measure_unet(name, size, args.iterations)
        else:
            chosen = variants(device)
            rate = dense_conv_rate(device, getattr(torch, chosen[-1].dtype))
            result = compare_variants(
                BASELINES[name], ROOT / 'configs' / 'sparserefine', device, chosen, size,
                iterations=args.iterations, warmup=1)
            summary |= pair_figures(name, result, rate)
        summarize(summary)
        args.out.write_text(json.dumps(summary, indent=2) + '\n')
        args.out.with_suffix('.md').write_text(markdown(summary))
    committed = json.loads(args.committed.read_text()) if args.committed.is_file() else {}
    print_tables(summary, committed)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
