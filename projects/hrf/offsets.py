r"""Precision and recall of vessels where the background's logit is moved; arteries taken for veins.

    python projects/hrf/offsets.py mmsparse://sparserefine-s_wnet_hrf

Of the config's test set, at full size inside the field of view, in bfloat16. Moves the logit on the
selected pixels alone: what another threshold, without other weights, would give.
"""
from __future__ import annotations

import argparse

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS
from rich.console import Console
from rich.table import Table

from mmsparse.engine.fusion import fuse_for_inference
from mmsparse.engine.loading import load_model

OFFSETS = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Count pairs of true and found class for every offset, print."""
    args = parse_args()
    model = load_model(args.config, args.checkpoint, 'cpu', {'model.test_cfg.seg_logits': True})
    fuse_for_inference(model, dtype='bfloat16')
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    counts = np.zeros((len(OFFSETS), 3, 3))  # true class, found class
    for index in range(len(dataset)):
        batch = model.data_preprocessor(pseudo_collate([dataset[index]]))
        sample, = model(**batch, mode='predict')
        true, logits = sample.gt_sem_seg.data[0].long(), sample.seg_logits.data
        known, selected = true != 255, sample.selected.data[0]
        for offset, count in zip(OFFSETS, counts, strict=True):
            moved = logits.clone()
            moved[0][selected] += offset
            pairs = 3 * true[known] + moved.argmax(0)[known]
            count += torch.bincount(pairs, minlength=9).view(3, 3).numpy()
    table = Table('offset', 'mIoU %', 'precision %', 'recall %', 'Dice %', 'of the other kind %')
    for offset, count in zip(OFFSETS, counts, strict=True):
        right = np.diag(count)
        iou = right / (count.sum(0) + count.sum(1) - right)
        vessels = count[1:, 1:].sum()
        precision, recall = vessels / count[:, 1:].sum(), vessels / count[1:].sum()
        shares = (iou.mean(), precision, recall, 2 / (1 / precision + 1 / recall),
                  (count[1, 2] + count[2, 1]) / vessels)
        table.add_row(f'{offset:g}', *(f'{100 * share:.2f}' for share in shares))
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
