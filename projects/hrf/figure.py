r"""The picture of the README: what refinement changes in a part of a photograph of HRF.

    python projects/hrf/figure.py mmsparse://sparserefine-s_wnet_hrf --out docs/images/hrf.jpg

Reads `hrf` below MMSPARSE_DATA. Shows the part in which most changed, for better or worse.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2

from mmsparse.apis import inference, init_model, read_image
from mmsparse.visualization import changes, liveliest_window, refinement_panels

PART = (450, 800)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--photograph', default='15_g', help='one that is not trained on')
    parser.add_argument('--out', type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Predict, compare, draw."""
    args = parse_args()
    folder = Path(os.environ.get('MMSPARSE_DATA', 'data'), 'hrf')
    image = read_image(folder / 'images' / f'{args.photograph}.jpg')
    label = cv2.imread(str(folder / 'labels' / f'{args.photograph}.png'), cv2.IMREAD_UNCHANGED)
    model = init_model(args.config, args.checkpoint, 'cpu')
    sample = inference(model, image)
    low, selected, refined = (sample.get(name).data[0].numpy() for name in (
        'low_res_sem_seg', 'selected', 'pred_sem_seg'))
    panels = refinement_panels(
        image, low, selected, refined, label, width=480, classes=model.dataset_meta['classes'],
        palette=model.dataset_meta['palette'],
        window=liveliest_window(*changes(low, refined, label), size=PART))
    cv2.imwrite(str(args.out), panels, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == '__main__':
    main()
