"""Convert ISIC 2018 task 1, outlines of skin lesions (Codella et al., arXiv 1902.03368)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pairs import Pair, convert, make_parser, stop

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

PARTS = {'train': 'Training', 'val': 'Validation', 'test': 'Test'}


def to_ids(mask: Image) -> np.ndarray:
    """0 background, 1 lesion.

    Raises:
        ValueError: a value other than 0 and 255.
    """
    import numpy as np

    values = np.asarray(mask.convert('L'))
    wrong = sorted(set(np.unique(values).tolist()) - {0, 255})
    if wrong:
        raise ValueError(f'the mask has values other than 0 and 255, such as {wrong[0]}')
    return values // 255


def find_pairs(folder: Path) -> list[Pair]:
    """One pair per image of the parts that are there, in the order of names."""
    pairs = []
    for split, part in PARTS.items():
        images = folder / f'ISIC2018_Task1-2_{part}_Input'
        masks = folder / f'ISIC2018_Task1_{part}_GroundTruth'
        if not images.is_dir():
            print(f'no {images}: {split} is left out', file=sys.stderr)
        elif not masks.is_dir():
            stop(f'{images} has no {masks} beside it')
        pairs += [Pair(path.stem, path, masks / f'{path.stem}_segmentation.png', split)
                  for path in sorted(images.glob('*.jpg'))]
    return pairs


def main() -> int:
    """Convert what is there."""
    args = make_parser(
        __doc__, 'holds ISIC2018_Task1-2_{Training,Validation,Test}_Input and '
        'ISIC2018_Task1_{Training,Validation,Test}_GroundTruth', 'isic').parse_args()
    pairs = find_pairs(args.folder)
    if not pairs:
        stop(f'no ISIC2018_Task1-2_*_Input with *.jpg in {args.folder}')
    return convert(pairs, to_ids, args)


if __name__ == '__main__':
    sys.exit(main())
