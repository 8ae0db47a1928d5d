"""What the converters share: from (image, mask) pairs to mmseg's ``images`` and ``labels``.

Nothing heavy is imported at the top, so that ``-h`` is fast.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SPLITS = ('train', 'val', 'test')


class Pair(NamedTuple):
    """One labeled picture of a download."""

    name: str
    image: Path
    mask: Path
    split: str


def stop(message: str) -> None:
    """End with one line on stderr and exit code 1."""
    sys.exit(f'{Path(sys.argv[0]).name}: {message}')


def make_parser(description: str, folder_help: str, name: str) -> argparse.ArgumentParser:
    """The arguments that the converters share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('folder', type=Path, help=folder_help)
    parser.add_argument('-o', '--out-dir', type=Path,
                        default=Path(os.environ.get('MMSPARSE_DATA', 'data'), name),
                        help='where images and labels go (default: %(default)s)')
    parser.add_argument('--nproc', type=int, default=1, help='number of processes')
    parser.add_argument('--force', action='store_true',
                        help='replace pictures that were converted before')
    return parser


def convert(pairs: list[Pair], to_ids: Callable[[Image], np.ndarray],
            args: argparse.Namespace) -> int:
    """Write ``images/SPLIT/NAME.jpg`` and ``labels/SPLIT/NAME.png`` of every pair.

    Images are hard links where the file system can, else copies. Of a bad pair neither is written.

    Args:
        pairs: what to convert; names are unique.
        to_ids: from the mask to uint8 class numbers ``[H, W]``; a ValueError says why not.
            A function at the top of a module, as it is sent to other processes.
        args: the shared arguments.

    Returns:
        Exit code: 1 if a pair was bad, else 0.
    """
    # In every split: with another share for validation a picture may have moved to another one.
    old = [path for pair in pairs for split in SPLITS
           for path in targets(pair._replace(split=split), args.out_dir) if path.exists()]
    if old and not args.force:
        stop(f'{len(old)} files are there already, such as {old[0]}; --force replaces them')

    from mmengine.utils import track_parallel_progress, track_progress

    for path in old:
        path.unlink()
    for split in {pair.split for pair in pairs}:
        for kind in ('images', 'labels'):
            Path(args.out_dir, kind, split).mkdir(parents=True, exist_ok=True)
    task = partial(convert_pair, to_ids=to_ids, out_dir=args.out_dir)
    problems = (track_parallel_progress(task, pairs, args.nproc) if args.nproc > 1
                else track_progress(task, pairs))
    bad = [f'{pair.name}: {problem}' for pair, problem in zip(pairs, problems, strict=True)
           if problem]
    good = [pair.split for pair, problem in zip(pairs, problems, strict=True) if not problem]
    print(f'\n{args.out_dir}: ' + ', '.join(f'{good.count(split)} {split}' for split in SPLITS
                                            if split in good))
    if bad:
        print(f'{len(bad)} of {len(pairs)} pictures were left out:', *bad, sep='\n  ',
              file=sys.stderr)
    return 1 if bad else 0


def targets(pair: Pair, out_dir: Path) -> tuple[Path, Path]:
    """Where the image and the label of a pair go."""
    return (out_dir / 'images' / pair.split / f'{pair.name}.jpg',
            out_dir / 'labels' / pair.split / f'{pair.name}.png')


def convert_pair(pair: Pair, to_ids: Callable[[Image], np.ndarray], out_dir: Path) -> str | None:
    """Convert one pair; what is wrong with it, or None."""
    from PIL import Image

    try:
        image, mask = read(pair.image), read(pair.mask)
        if image.size != mask.size:
            raise ValueError('image of {}x{}, mask of {}x{} pixels'.format(
                *image.size, *mask.size))
        ids = to_ids(mask)
    except ValueError as error:
        return str(error)
    image_target, label_target = targets(pair, out_dir)
    Image.fromarray(ids).save(label_target)
    link(pair.image, image_target)
    return None


def read(path: Path) -> Image:
    """A picture, decoded to its end.

    Raises:
        ValueError: there is none, or it is broken.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
        return picture
    except FileNotFoundError:
        raise ValueError(f'no {path.name}') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path.name} cannot be read ({error})') from error


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where links are impossible."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
