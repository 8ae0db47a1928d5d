r"""What a refiner learns from, decoded once: photographs, labels and low-resolution scores.

    python projects/hrf/prepare.py CONFIG --out work_dirs/hrf --name wnet-1024

Writes the training photographs and labels, at the size of the config's test pipeline, as
uncompressed pictures, which are read faster than JPEG and PNG, and the scores of the config's
frozen segmentor as `mmsparse.LoadLowResLogits` reads them; enlarged to the picture with
`upsample='bilinear'`.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from mmsparse.checkpoint import allow_mmengine
from mmsparse.engine import progress_display
from mmsparse.engine.config import read_config


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a refiner')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--name', required=True, help='folder of the scores, below --out')
    parser.add_argument('--numbers', type=int, nargs='+', default=tuple(range(6, 14)))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Write all three."""
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope('mmseg')
    allow_mmengine()
    model = MODELS.build(cfg.model).eval()
    model.init_weights()
    data = DATASETS.build(dict(cfg.val_dataloader.dataset, numbers=args.numbers))
    folders = [args.out / name for name in ('images', 'labels', args.name)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    with progress_display() as progress:
        task = progress.add_task('Prepare', total=len(data), note='')
        for item in data:
            image, sample = item['inputs'], item['data_samples']
            stem = Path(sample.img_path).stem
            low = model.low_resolution(model.data_preprocessor(pseudo_collate([item]))['inputs'])
            # Stored scores are read without interpolation.
            scores = (low.full() if low.mode == 'bilinear' else low.scores)[0]
            image = image.permute(1, 2, 0).numpy()
            # EXACT: OpenCV's plain nearest neighbor moves labels by up to half a pixel.
            label = cv2.resize(sample.gt_sem_seg.data[0].byte().numpy(), image.shape[1::-1],
                               interpolation=cv2.INTER_NEAREST_EXACT)
            cv2.imwrite(str(folders[0] / f'{stem}.bmp'), image)
            cv2.imwrite(str(folders[1] / f'{stem}.bmp'), label)
            np.save(folders[2] / f'{stem}.npy', scores.half().numpy())
            progress.update(task, advance=1, note=stem)


if __name__ == '__main__':
    main()
