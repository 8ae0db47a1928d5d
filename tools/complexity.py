"""Count a model's multiply-accumulates and parameters; nothing is computed, no memory is used.

Convolutions and matrix products count, nothing else; operators without a shape rule (deformable
attention) stop the count. Parameters are split into those that start from pretrained weights and
those that start from random ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from command_line import add_cfg_options, check_config, stop


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or mmsparse::swiftnet/X.py')
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'),
                        help='size of the image (default: 1024 2048)')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Count, print, write."""
    args = parse_args()
    check_config(args.config)
    if min(args.shape) < 1:
        stop(f'--shape must be positive, got {args.shape}')

    from rich.console import Console
    from rich.table import Table

    from mmsparse.engine.complexity import complexity

    try:
        counts = complexity(args.config, tuple(args.shape), args.cfg_options)
    except NotImplementedError as error:
        stop(str(error))
    height, width = args.shape
    table = Table('figure', title=f'{Path(args.config).stem}, {height}x{width}')
    table.add_column('exact', justify='right')
    table.add_column('', justify='right')
    for name, value in counts.items():
        unit = (1e9, 'G') if name in ('MACs', 'FLOPs (2 x MACs)') else (1e6, 'M')
        table.add_row(name, f'{value:,}', f'{value / unit[0]:.2f} {unit[1]}')
    Console(width=None if Console().is_terminal else 100).print(table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(dict(shape=list(args.shape), **counts), indent=2) + '\n')


if __name__ == '__main__':
    main()
