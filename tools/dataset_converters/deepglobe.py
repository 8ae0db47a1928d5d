"""Convert the labeled part of DeepGlobe Land Cover (Demir et al., CVPR Workshops 2018).

The masks of the official validation and test pictures are not public, so the 803 labeled ones are
split into train and val here. The split is ours; it depends only on names, --val-share and --seed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pairs import Pair, convert, make_parser, stop

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Class number by color, where red, green and blue are the bits 4, 2 and 1: urban (cyan),
# agriculture (yellow), rangeland (magenta), forest (green), water (blue), barren (white), unknown
# (black). Red is no class, but a color between magenta and yellow.
RED = 0b100
CLASS_OF_BITS = {0b011: 0, 0b110: 1, 0b101: 2, 0b010: 3, 0b001: 4, 0b111: 5, 0b000: 255, RED: 255}
STRAY = 1e-3


def to_ids(mask: Image) -> np.ndarray:
    """Class numbers 0-5, 255 = unknown.

    The masks are not pure 0 and 255; as the organizers ask, each channel is cut at 128. Red pixels,
    which impure edges may leave behind, become 255.

    Raises:
        ValueError: more than ``STRAY`` of the pixels are red.
    """
    import numpy as np

    bits = (np.asarray(mask.convert('RGB')) >= 128) @ np.array([4, 2, 1], dtype=np.uint8)
    red = (bits == RED).mean()
    if red > STRAY:
        raise ValueError(f'{red:.1%} of the mask is red, which is no class')
    table = np.zeros(8, dtype=np.uint8)
    table[list(CLASS_OF_BITS)] = list(CLASS_OF_BITS.values())
    return table[bits]


def validation_names(names: list[str], share: float, seed: int) -> set[str]:
    """``share`` of the names, the ones with the smallest SHA-256 of seed and name.

    Unlike a shuffle, it hardly changes if a few pictures are missing.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f'{seed} {name}'.encode()).digest())
    return set(ranked[:round(share * len(names))])


def find_pairs(folder: Path, share: float, seed: int) -> list[Pair]:
    """One pair per ``NAME_sat.jpg``, in the order of names."""
    names = sorted(path.name.removesuffix('_sat.jpg') for path in folder.glob('*_sat.jpg'))
    val = validation_names(names, share, seed)
    return [Pair(name, folder / f'{name}_sat.jpg', folder / f'{name}_mask.png',
                 'val' if name in val else 'train') for name in names]


def main() -> int:
    """Split and convert."""
    parser = make_parser(__doc__, 'the unpacked land-train, with *_sat.jpg and *_mask.png',
                         'deepglobe')
    parser.add_argument('--val-share', type=float, default=0.2,
                        help='share of the pictures kept for validation (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='another number, another split (default: %(default)s)')
    args = parser.parse_args()
    if not 0 < args.val_share < 1:
        parser.error(f'--val-share must lie between 0 and 1, got {args.val_share}')
    pairs = find_pairs(args.folder, args.val_share, args.seed)
    if not pairs:
        stop(f'no *_sat.jpg in {args.folder}')
    return convert(pairs, to_ids, args)


if __name__ == '__main__':
    sys.exit(main())
