"""Refine coarse masks with CRM: one image and its mask, two folders of them, or a COCO JSON.

Masks are pictures (gray, 0 to 255), .npy (bool, uint8, or probabilities) or .json (a COCO
run-length code); more than 127 is foreground, so maps of class numbers are refused. In folders a
mask belongs to the image of the same name; in one folder that holds both, the JPEG is the image.
Pictures and masks are read as stored, without EXIF's rotation. Of a folder of images and the COCO
JSON of a data set, the whole JSON is written anew; the same command goes on after an interruption.
Nothing is written over without --force; files that fail are listed at the end, and the exit code
is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import (
    add_cfg_options,
    add_launcher_option,
    check_config,
    find_checkpoint,
    join_processes,
    leave,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    from mmengine.model import BaseModel

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
MASKS = (*IMAGES, '.npy', '.json')
CONFIG = 'mmsparse::crm/crm_r50_2xb6-45k_saliency-224x224.py'
SMALL = 'mmsparse://crm_mnv2'


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path, help='an image, or a folder of images')
    parser.add_argument('mask', type=Path, help='its coarse mask, a folder of masks, or the COCO '
                                                'JSON of the images')
    parser.add_argument('--checkpoint',
                        help=f'weights of the refiner (default: {SMALL}, a small one that comes '
                             'with the package)')
    parser.add_argument('--config',
                        help=f'its config, or mmsparse://NAME of the zoo (default: {CONFIG} where '
                             'a checkpoint is named)')
    parser.add_argument('--out', type=Path, required=True,
                        help='file of the refined mask (.png, .npy, .json), or a folder')
    parser.add_argument('--format', choices=('png', 'npy', 'json'), default='png',
                        help='of the files in the folder (default: png)')
    parser.add_argument('--soft', action='store_true', help='keep probabilities, do not cut at 0.5')
    parser.add_argument('--max-gib', type=float,
                        help='memory to use above weights and images, in GiB (default: any)')
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument('--force', action='store_true', help='write over files that exist')
    add_cfg_options(parser)
    add_launcher_option(parser)
    args = parser.parse_args()
    args.config = args.config or (CONFIG if args.checkpoint else SMALL)
    if args.max_gib is not None and args.max_gib <= 0:
        parser.error(f'--max-gib must be positive, got {args.max_gib}')
    if args.soft and 'json' in (args.format, args.out.suffix.lower()[1:]):
        parser.error('--soft: a run-length code cannot be soft')
    return args


def pair(image: Path, mask: Path) -> list[tuple[Path, Path]]:
    """Images and their masks."""
    if image.is_file() and mask.is_file():
        if image.samefile(mask):
            stop(f'{image} is named as the image and as its mask')
        return [(image, mask)]
    if not (image.is_dir() and mask.is_dir()):
        stop(f'{image} and {mask} must be two files or two folders that exist')
    images, masks = by_name(image, IMAGES), by_name(mask, MASKS)
    if image.samefile(mask):
        masks = {name: beside(files, masks[name]) for name, files in images.items()} | {
            name: files for name, files in masks.items() if name not in images}
        images = {name: [file for file in files if file not in masks[name]] or files
                  for name, files in images.items()}
        masks = {name: files for name, files in masks.items() if files}
    if not masks:
        stop(f'folder {mask} holds no mask ({", ".join(MASKS)})')
    if missing := sorted(masks.keys() - images.keys()):
        stop(f'{len(missing)} masks in {mask} have no image in {image}: {", ".join(missing[:3])}')
    unclear = [sorted({*images[name], *files}) for name, files in masks.items()
               if len(images[name]) + len(files) > 2]
    if unclear:
        stop(f'{len(unclear)} names have more than one image or mask; which belong together? '
             + '; '.join(', '.join(map(str, files)) for files in unclear))
    if alone := sorted(images.keys() - masks.keys()):
        print(f'{Path(sys.argv[0]).name}: {len(alone)} images in {image} have no mask in {mask} '
              f'and are left out: {", ".join(alone[:3])}', file=sys.stderr)
    return [(images[name][0], files[0]) for name, files in masks.items()]


def by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of these suffixes in a folder, by name without suffix, in order."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in suffixes and file.is_file():
            files.setdefault(file.stem, []).append(file)
    return files


def beside(pictures: list[Path], files: list[Path]) -> list[Path]:
    """Which of the files of one name are masks, in a folder of images and masks.

    A lone JPEG is the image, else a lone picture; if there is none, all of them are returned.
    """
    image = [file for file in pictures if file.suffix.lower() in ('.jpg', '.jpeg')] or pictures
    return [file for file in files if file not in image] if len(image) == 1 else files


def places(pairs: list[tuple[Path, Path]], out: Path, suffix: str) -> list[Path]:
    """Where each refined mask goes; never where an image or a mask lies."""
    if out.is_dir() or not out.suffix:
        if out.is_file():
            stop(f'--out {out} is a file: name a folder, or a file that ends in .png, .npy, .json')
        outs = [out / f'{mask.stem}.{suffix}' for _, mask in pairs]
    elif out.suffix.lower() not in ('.png', '.npy', '.json'):
        stop(f'--out {out} must end in .png, .npy or .json, or be a folder (one with a dot in its '
             'name has to exist)')
    elif len(pairs) > 1:
        stop(f'--out {out} is one file, but there are {len(pairs)} masks: name a folder')
    else:
        outs = [out]
    given = {file.resolve() for files in pairs for file in files}
    if taken := [str(file) for file in outs if file.resolve() in given]:
        stop(f'--out {out} would write over what is refined: {", ".join(taken[:3])}')
    return outs


def refine_data_set(args: argparse.Namespace) -> None:
    """Refine the masks of a COCO JSON; exit code 1 if a picture or annotation failed."""
    if args.out.suffix.lower() != '.json' or args.out.is_dir():
        stop(f'--out {args.out} must be a file that ends in .json, as {args.mask} is a COCO JSON')
    if args.out.exists() and args.out.samefile(args.mask):
        stop(f'--out {args.out} would write over what is refined')
    if args.out.exists() and not args.force:
        stop(f'{args.out} exists; --force writes over it')
    join_processes(args)

    from mmengine import dist

    from mmsparse.engine import progress_display
    from mmsparse.engine.refine_coco import refine_coco

    model, rank = build_model(args), dist.get_rank()
    setting = f'{args.config} {args.checkpoint} {args.cfg_options}'
    with progress_display(disable=rank > 0) as progress:
        task = progress.add_task('Refine', total=None, note='')
        try:
            done = refine_coco(
                model, args.image, args.mask, args.out, setting=setting,
                on_image=lambda n, total: progress.update(task, completed=n, total=total))
        except (OSError, ValueError) as error:
            stop(str(error))
    if rank == 0:
        print(f'{args.out}: {done.refined} masks are refined, {done.kept} annotations stay as they '
              'are')
        if done.failed:
            print(f'{Path(sys.argv[0]).name}: not refined:', *done.failed, sep='\n  ',
                  file=sys.stderr)
    leave(failed=bool(done.failed))


def build_model(args: argparse.Namespace) -> BaseModel:
    """The refiner."""
    from mmsparse.apis import init_model

    options = dict(args.cfg_options or {})
    if args.max_gib is not None:
        options['model.test_cfg.max_bytes'] = int(args.max_gib * 2**30)
    with one_line_errors():
        return init_model(args.config, args.checkpoint, args.device, options)


def main() -> None:
    """Refine every mask; exit code 1 if one failed."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    if args.image.is_dir() and args.mask.is_file() and args.mask.suffix.lower() == '.json':
        refine_data_set(args)
        return
    pairs = pair(args.image, args.mask)
    outs = places(pairs, args.out, args.format)

    join_processes(args)

    from mmengine import dist

    from mmsparse.apis import refine_mask
    from mmsparse.engine import progress_display
    from mmsparse.masks import read_mask, write_mask

    model = build_model(args)
    failed = []
    rank, world_size = dist.get_dist_info()
    share = list(zip(pairs, outs, strict=True))[rank::world_size]
    with progress_display(disable=rank > 0) as progress:
        task = progress.add_task('Refine', total=len(share), note='')
        for (image, mask), out in share:
            try:
                if out.exists() and not args.force:
                    raise FileExistsError(f'{out} exists; --force writes over it')
                coarse = read_mask(mask)
                refined = refine_mask(image, coarse, model)
                write_mask(out, refined, soft=args.soft)
                changed = ((refined > 0.5) != (coarse > 0.5)).mean()
                progress.console.print(f'{out}: {changed:.2%} of the pixels changed',
                                       markup=False, highlight=False, soft_wrap=True)
            except (OSError, ValueError, RuntimeError, MemoryError) as error:
                failed.append((pairs.index((image, mask)), f'{mask}: {error}'))
            progress.advance(task)
    failed = sorted(sum(dist.all_gather_object(failed), []))
    if failed and rank == 0:
        print(f'{Path(sys.argv[0]).name}: {len(failed)} of {len(pairs)} masks are not refined:',
              *(line for _, line in failed), sep='\n  ', file=sys.stderr)
    leave(failed=bool(failed))


if __name__ == '__main__':
    main()
