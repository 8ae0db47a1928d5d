r"""Low resolution, dense and refined models on the same images, in turns.

    python projects/camvid/compare.py --low CONFIG CHECKPOINT --dense CONFIG CHECKPOINT \
        --refined CONFIG CHECKPOINT

The refined model is measured with both ways of upsampling the low-resolution logits. Below the
tables stands how slow a dense pass must be for refinement to save time, at this size and density.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from rich.console import Console
from rich.table import Table

from mmsparse.checkpoint import load_weights
from mmsparse.engine import compare


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('low', 'dense', 'refined'):
        parser.add_argument(f'--{name}', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), required=True)
    parser.add_argument('--out', type=Path, help='write all figures here as JSON')
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    register_all_modules()
    models, loaders = {}, {}
    for name in ('low', 'dense', 'refined nearest', 'refined bilinear'):
        config, checkpoint = getattr(args, name.split()[0])
        cfg = Config.fromfile(config)
        if name.startswith('refined'):
            cfg.model.update(upsample=name.split()[1], segmentor_checkpoint=None)
        models[name] = MODELS.build(cfg.model).eval()
        load_weights(models[name], checkpoint)
        # No loading processes: they would disturb the clock.
        loaders[name] = cfg.test_dataloader
        loaders[name].update(num_workers=0, persistent_workers=False)
    scores = compare(models, loaders)
    columns = ('mIoU %', 'small %', 'ms', 'density %', 'recall %', 'precision %')
    table = Table('', *columns)
    for name, s in scores.items():
        table.add_row(name, f'{s.miou:.2f}', f'{s.small_iou:.2f}', f'{s.milliseconds:.0f}', *(
            f'{100 * v:.1f}' for v in (s.density, s.recall, s.precision)))
    classes = Table('IoU %', *scores)
    for c in scores['low'].iou:
        classes.add_row(c, *(f'{s.iou[c]:.1f}' for s in scores.values()))
    Console().print(table, classes)
    low, dense, refined = (
        scores[name].milliseconds for name in ('low', 'dense', 'refined nearest'))
    if low < dense:
        # what refining takes does not depend on the network, and a low-resolution pass always takes
        # about the same share of a dense one
        refining = refined - low
        print(f'Refining takes {refining:.0f} ms: it saves time over networks whose dense pass '
              f'takes more than {refining / (1 - low / dense):.0f} ms.')
    if args.out:
        args.out.write_text(json.dumps({n: s._asdict() for n, s in scores.items()}, indent=2))


if __name__ == '__main__':
    main()
