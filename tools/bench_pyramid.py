"""Head of Specialize and Fuse: dense inference against sparse, with unity maps of real density.

Times the decode head alone, on random maps of its backbone: all cells of all levels, then those
alone that no coarser unity cell settles. Which cells are unity says the ground truth: label maps,
enlarged to cover the size and cut in the middle; the head computes its own unity maps, but they are
not listened to. Random weights, float32, batch norms folded, channels last, batch 1; dense and
sparse in turns on the same maps. Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import check_config, stop

if TYPE_CHECKING:  # imported late below, so that -h is fast
    from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'specialize-fuse{}_hr48_4xb4-160k_ade20k-512x512.py'
CONFIGS = [str(ROOT / 'configs' / 'specialize_fuse' / CONFIG.format(name))
           for name in ('-sparse', '-kv-coarser-sparse')]
LABELS = Path(os.environ.get('MMSPARSE_DATA', 'data'), 'camvid', 'labels', 'val')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=CONFIGS,
                        help='with fusion.sparse (default: tokens of each level, tokens of the '
                             'coarsest level)')
    parser.add_argument('--classes', type=int, nargs='+', default=[19, 150, 171], metavar='K')
    parser.add_argument('--shape', type=int, nargs=2, action='append', metavar=('H', 'W'),
                        help='may be repeated (default: 512 512 and 1024 2048)')
    parser.add_argument('--labels', type=Path, default=LABELS,
                        help="folder of label maps, 255 ignored (default: CamVid's validation set)")
    parser.add_argument('--images', type=int, default=5, help='label maps, evenly from the folder')
    parser.add_argument('--iterations', type=int, default=5, help='timed passes of each')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/pyramid.json'))
    return parser.parse_args()


def read_labels(folder: Path, count: int, size: tuple[int, int]) -> list[Tensor]:
    """Label maps ``[1, H, W]`` that cover the size, nearest neighbor, cut in the middle."""
    import mmcv
    import torch

    files = sorted(folder.glob('*.png'))
    if not files:
        stop(f'--labels {folder} holds no .png')
    label_maps = []
    for file in files[::max(1, len(files) // count)][:count]:
        label = mmcv.imread(file, flag='unchanged')
        scale = max(size[0] / label.shape[0], size[1] / label.shape[1])
        label = mmcv.imresize(label, [max(n, round(m * scale)) for n, m in zip(
            size[::-1], label.shape[1::-1], strict=True)], interpolation='nearest')
        top, left = ((m - n) // 2 for m, n in zip(label.shape, size, strict=True))
        label_maps.append(torch.from_numpy(
            label[top:top + size[0], left:left + size[1]].astype('int64'))[None])
    return label_maps


@contextlib.contextmanager
def forced_unity(head: nn.Module, unity: list[Tensor]) -> Iterator[None]:
    """Let a head take these cells as unity, whatever it predicts, dense or sparse.

    Args:
        head: a ``SpecializeFuseHead``.
        unity: bool ``[1, 1, h, w]`` of the levels but the finest.
    """
    from mmsparse.models.specialize_fuse.cells import done_cells, gather_cells

    done = done_cells(unity, head.ratios, [m.shape[2:] for m in unity[1:]] + [
        [n * head.ratios[-1] for n in unity[-1].shape[2:]]])
    active = [(~cells).flatten().nonzero().squeeze(1) for cells in done]
    original = head.classify

    def classify(level: int, refined: Tensor) -> tuple[Tensor | None, Tensor | None]:
        sem, logits = original(level, refined)
        if logits is None:
            return sem, logits
        whole = logits.shape == unity[level].shape
        cells = unity[level] if whole else gather_cells(unity[level], active[level - 1])
        return sem, cells.float() * 2 - 1

    head.classify = classify
    try:
        yield
    finally:
        del head.classify


def measure(head: nn.Module, labels: list[Tensor], size: tuple[int, int], iterations: int,
            device: str) -> dict[str, Any]:
    """Dense and sparse on the same maps, in turns; milliseconds, costs, difference, shares."""
    import torch

    from mmsparse.engine.complexity import dense_macs
    from mmsparse.engine.machine import synchronize
    from mmsparse.models.specialize_fuse.cells import grid_size
    from mmsparse.models.specialize_fuse.targets import UNITY, pyramid_targets

    device = torch.device(device)
    metas = [dict(img_shape=size)]
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, c, *grid_size(size, 4 << i), generator=generator).to(
        device, memory_format=torch.channels_last) for i, c in enumerate((48, 96, 192, 384))]
    times: dict[bool, list[float]] = {False: [], True: []}
    macs: dict[bool, list[int]] = {False: [], True: []}
    shares: list[dict[int, float]] = []
    difference = 0.0
    oracles = [[(u == UNITY)[:, None] for u in pyramid_targets(label.to(device), head.strides)[1]]
               for label in labels]

    def run(sparse: bool) -> Tensor:
        head.fusion.sparse = sparse
        return head.predict(maps, metas, {})

    for step in range(-1, iterations):
        with forced_unity(head, oracles[step % len(oracles)]):
            for sparse in (True, False) if step % 2 else (False, True):
                synchronize(device)
                start = time.perf_counter()
                run(sparse)
                synchronize(device)
                if step >= 0:
                    times[sparse].append((time.perf_counter() - start) * 1000)
    for oracle in oracles:
        with forced_unity(head, oracle):
            for sparse in (False, True):
                macs[sparse].append(dense_macs(lambda sparse=sparse: run(sparse)))
            shares.append(dict(head.active_share))
            difference = max(difference, float((run(True) - run(False)).abs().max()))
    dense, sparse = (statistics.median(times[s]) for s in (False, True))
    return dict(
        dense_ms=dense, sparse_ms=sparse, speedup=dense / sparse,
        dense_gmacs=statistics.mean(macs[False]) / 1e9,
        sparse_gmacs=statistics.mean(macs[True]) / 1e9, difference=difference,
        active={stride: statistics.mean(s[stride] for s in shares) for stride in shares[0]})


def main() -> None:
    """Measure, print, write after every step."""
    args = parse_args()
    for config in args.configs:
        check_config(config)
    sizes = [tuple(size) for size in args.shape or ((512, 512), (1024, 2048))]
    import torch
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope
    from rich.console import Console
    from rich.table import Table

    from mmsparse.engine.config import read_config
    from mmsparse.engine.fusion import fuse_for_inference
    from mmsparse.engine.machine import machine

    table = Table('config', title='decode head alone, ms per image')
    for title in ('size', 'K', 'dense', 'sparse', 'speed', 'GMACs dense', 'sparse', 'active cells',
                  'difference'):
        table.add_column(title, justify='right')
    summary = dict(machine=machine(torch.device(args.device)), images=args.images,
                   labels=str(args.labels), iterations=args.iterations, results=[])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    labels = {size: read_labels(args.labels, args.images, size) for size in sizes}
    for config, size, classes in product(args.configs, sizes, args.classes):
        cfg = read_config(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        head = MODELS.build(dict(cfg.model.decode_head, num_classes=classes))
        head = fuse_for_inference(revert_sync_batchnorm(head).to(args.device))
        with torch.no_grad():
            row = measure(head, labels[size], size, args.iterations, args.device)
        name = Path(config).stem
        summary['results'].append(dict(config=name, size=list(size), classes=classes, **row))
        args.out.write_text(json.dumps(summary, indent=2) + '\n')
        shares = ', '.join(f's{s} {share:.0%}' for s, share in row['active'].items())
        table.add_row(name, f'{size[0]}x{size[1]}', str(classes), f'{row["dense_ms"]:.0f}',
                      f'{row["sparse_ms"]:.0f}', f'{row["speedup"]:.2f}x',
                      f'{row["dense_gmacs"]:.1f}', f'{row["sparse_gmacs"]:.1f}', shares,
                      f'{row["difference"]:.0e}')
        print(f'{name} {size} K={classes}: {row["speedup"]:.2f}x', flush=True)
    Console(width=None if Console().is_terminal else 170).print(table)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
