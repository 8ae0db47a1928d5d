"""Which entropy threshold finds enough of a low-resolution model's errors.

Prints recall, precision and density of the entropy selector for a range of thresholds, and the
largest threshold that reaches the wanted recall. Use the training images: a threshold chosen on
the images that are reported on would flatter them.

    python projects/camvid/choose_alpha.py CONFIG CHECKPOINT [--upsample nearest]
"""
from __future__ import annotations

import argparse

import torch
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from rich.console import Console
from rich.table import Table

import mmsparse  # noqa: F401  mends the framework before configs are read
from mmsparse.models.sparserefine import UpsampledLogits
from mmsparse.sparse import entropy

ALPHAS = [round(.05 * k, 2) for k in range(1, 41)]


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the low-resolution model')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--upsample', choices=['nearest', 'bilinear'], default='bilinear')
    parser.add_argument('--recall', type=float, default=0.8, help='share of errors to be found')
    parser.add_argument('--images', type=int, default=40)
    return parser.parse_args()


@torch.no_grad()
def count(model: torch.nn.Module, loader: torch.utils.data.DataLoader, upsample: str
          ) -> torch.Tensor:
    """``[len(ALPHAS), 4]``: selected errors, selected, errors, valid pixels of all images."""
    totals = torch.zeros(len(ALPHAS), 4, dtype=torch.float64)
    for batch in loader:
        batch = model.data_preprocessor(batch, False)
        inputs, sample = batch['inputs'], batch['data_samples'][0]
        # Logits at the network's own output size: no image in the meta data, no resizing.
        shape = inputs.shape[2:]
        scores = model.encode_decode(
            inputs, [dict(img_shape=shape, pad_shape=shape, ori_shape=shape)])
        label = sample.gt_sem_seg.data
        low = UpsampledLogits(scores, tuple(label.shape[1:]), mode=upsample)
        valid = label != 255
        wrong = (low.classes() != label) & valid
        uncertainty = low.per_pixel(entropy, torch.float32)
        for row, alpha in zip(totals, ALPHAS, strict=True):
            chosen = (uncertainty > alpha) & valid
            row += torch.stack([(chosen & wrong).sum(), chosen.sum(), wrong.sum(), valid.sum()])
    return totals


def main() -> None:
    """Print the table."""
    args = parse_args()
    register_all_modules()
    cfg = Config.fromfile(args.config)
    model = MODELS.build(cfg.model).eval()
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    data = cfg.test_dataloader
    pipeline = data.dataset.pipeline
    data.dataset = cfg.train_dataloader.dataset
    data.dataset.update(pipeline=pipeline, indices=args.images)
    data.update(num_workers=0, persistent_workers=False)
    totals = count(model, Runner.build_dataloader(data), args.upsample)
    hit, chosen, wrong, valid = totals.T
    table = Table(title=f'{args.images} training images, {wrong[0] / valid[0]:.2%} of pixels wrong')
    for name in ('alpha', 'recall', 'precision', 'density'):
        table.add_column(name, justify='right')
    for k, alpha in enumerate(ALPHAS):
        table.add_row(f'{alpha:.2f}', *(f'{v:.3f}' for v in (
            hit[k] / wrong[k], hit[k] / chosen[k], chosen[k] / valid[k])))
    console = Console()
    console.print(table)
    enough = [a for a, h, w in zip(ALPHAS, hit, wrong, strict=True) if h / w >= args.recall]
    console.print(f'largest alpha with recall >= {args.recall}: {max(enough, default=None)}')


if __name__ == '__main__':
    main()
