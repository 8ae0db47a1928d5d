"""Label images with a SparseRefine model: five panels per image, and where the time goes."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import (
    ZOO,
    add_backend_options,
    check_config,
    find_checkpoint,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    import numpy as np
    from mmseg.structures import SegDataSample
    from rich.table import Table

    from mmsparse.models.sparserefine import SparseRefineSegmentor

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', nargs='+', metavar='image',
                        help='an image, or a folder of images')
    parser.add_argument('config', help='a config file of a SparseRefine model, '
                                       'mmsparse::sparserefine/NAME.py, or mmsparse://NAME of the '
                                       'zoo')
    parser.add_argument('checkpoint', nargs='?',
                        help='its checkpoint: a file or a URL; left out where the config is '
                             'mmsparse://NAME of the zoo')
    parser.add_argument('--out', type=Path, default=Path(),
                        help='folder for NAME_refined.jpg, or for a single image a file '
                             '(default: the current folder)')
    parser.add_argument('--labels', action='store_true',
                        help='write NAME_labels.png beside it: class numbers, 8-bit for up to 256 '
                             'classes, else 16-bit')
    parser.add_argument('--device', help="such as 'cuda:0' or 'cpu' (default: a GPU if there is "
                                         'one)')
    add_backend_options(parser)
    parser.add_argument('--window', action='store_true', help='show each picture in a window')
    parser.add_argument('--force', action='store_true', help='overwrite files')
    args = parser.parse_intermixed_args()  # options may stand between the positionals
    # argparse takes the last word for the config; after a config it is the checkpoint.
    before = args.images[-1]
    if not args.config.startswith(ZOO) or before.startswith(ZOO) or before.endswith('.py'):
        if len(args.images) < 2:
            parser.error(f'{args.config} is no mmsparse://NAME of the zoo: an image, a config and '
                         'a checkpoint are needed')
        args.images.pop()
        args.config, args.checkpoint = before, args.config
    args.images = [Path(image) for image in args.images]
    return args


def find_images(paths: list[Path]) -> list[Path]:
    """The given files, and the images in the given folders, in order."""
    images = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        if path.is_dir():
            inside = [file for file in inside if file.suffix.lower() in SUFFIXES]
            if not inside:
                stop(f'folder {path} holds no image ({", ".join(SUFFIXES)})')
        images += inside
    return images


def place_outputs(images: list[Path], out: Path) -> dict[Path, Path]:
    """Where the picture of each image goes; no two to the same place."""
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(images) > 1:
            stop(f'--out {out} is one file, but there are {len(images)} images: name a folder')
        return {images[0]: out}
    if out.suffix and not out.is_dir():
        stop(f'--out {out} must end in one of {", ".join(SUFFIXES)}, or be a folder (one with a '
             'dot in its name has to exist)')
    places = {image: out / f'{image.stem}_refined.jpg' for image in images}
    first = {}
    for image, place in places.items():
        if first.setdefault(place, image) != image:
            stop(f'{first[place]} and {image} would both be written to {place}')
    return places


def labels_file(picture: Path) -> Path:
    """Where the class map goes, beside the picture."""
    return picture.with_name(picture.stem.removesuffix('_refined') + '_labels.png')


def scoring_model(args: argparse.Namespace) -> SparseRefineSegmentor:
    """The model, told to keep the selector's score."""
    from mmdet.visualization.palette import get_palette

    from mmsparse.apis import init_model
    from mmsparse.models.sparserefine import SparseRefineSegmentor

    try:
        with one_line_errors():
            model = init_model(args.config, args.checkpoint, args.device, backend=args.backend,
                               dtype=args.dtype)
    except (FileNotFoundError, ValueError) as error:
        stop(str(error))
    if not isinstance(model, SparseRefineSegmentor):
        stop(f'{args.config} builds {type(model).__name__}, not SparseRefineSegmentor: nothing is '
             'refined there')
    classes, palette = (model.dataset_meta.get(key) or () for key in ('classes', 'palette'))
    if len(classes) != model.num_classes:
        stop(f'{args.config}: the model has {model.num_classes} classes, but checkpoint or test '
             f'set name {len(classes)}')
    if len(palette) != model.num_classes:  # a dataset without one gets random colors, as in mmseg
        palette = get_palette('random', model.num_classes)
    model.dataset_meta = dict(model.dataset_meta, palette=palette)
    model.test_cfg['keep_score'] = True
    return model


def draw(model: SparseRefineSegmentor, image: np.ndarray, sample: SegDataSample) -> np.ndarray:
    """The five panels."""
    from mmsparse.sparse import EntropySelector
    from mmsparse.visualization import refinement_strip

    maps = [sample.get(name).data[0].cpu().numpy() for name in (
        'low_res_sem_seg', 'selection_score', 'selected', 'pred_sem_seg')]
    entropy = isinstance(model.selector, EntropySelector)
    return refinement_strip(
        image, *maps, classes=model.dataset_meta['classes'],
        palette=model.dataset_meta['palette'],
        score_name='Entropy in nats' if entropy else 'Score of the selector')


def write(path: Path, picture: np.ndarray) -> None:
    """Write an image file and the folder that it lies in."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f'{path} cannot be written')


def show(title: str, picture: np.ndarray) -> None:
    """Show BGR in a window until it is closed or the space key is pressed."""
    from mmsparse.visualization import RefinementVisualizer

    RefinementVisualizer().show(picture[..., ::-1], win_name=title)


def stage_table(milliseconds: dict[str, list[float]]) -> Table:
    """Median time of each stage over the images, and its share of their sum."""
    from rich.table import Table

    medians = {title: statistics.median(times) for title, times in milliseconds.items()}
    total = sum(medians.values())
    count = max(map(len, milliseconds.values()))
    table = Table('stage', title=f'Time per image, median of {count}' if count > 1 else
                  'Time per image')
    for name in ('ms', 'share'):
        table.add_column(name, justify='right')
    for title, time in medians.items():
        table.add_row(title, f'{time:.1f}', f'{time / total:.1%}')
    table.add_section()
    table.add_row('all stages', f'{total:.1f}', f'{1:.1%}')
    return table


def main() -> None:
    """Label every image; exit code 1 if one failed."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    places = place_outputs(find_images(args.images), args.out)
    if args.window:
        import matplotlib.pyplot as plt
        if plt.get_backend().lower() == 'agg':
            stop('--window needs a display')

    from rich.console import Console

    from mmsparse.apis import inference
    from mmsparse.engine.stages import StageClock
    from mmsparse.pictures import read_image

    model = scoring_model(args)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    milliseconds: dict[str, list[float]] = {}
    warm = failed = False
    for path, place in places.items():
        try:
            targets = [place, *([labels_file(place)] if args.labels else [])]
            taken = [str(target) for target in targets if target.exists()]
            if taken and not args.force:
                raise FileExistsError(f'{" and ".join(taken)} exists; --force overwrites')
            image = read_image(path)
            if not warm:  # the first forward pass allocates and loads: it is not timed
                inference(model, image)
                warm = True
            clock = StageClock(model)
            with clock:
                sample = inference(model, image)
            picture = draw(model, image, sample)
            write(place, picture)
            if args.labels:
                depth = 'uint8' if model.num_classes <= 256 else 'uint16'
                write(targets[1], sample.pred_sem_seg.data[0].cpu().numpy().astype(depth))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            print(f'{Path(sys.argv[0]).name}: {path}: {error}', file=sys.stderr)
            failed = True
            continue
        for title, times in clock.milliseconds.items():
            milliseconds.setdefault(title, []).extend(times)
        density = sample.selected.data.float().mean().item()
        console.print(f'{path}: {density:.1%} of the pixels refined, {place}')
        if args.window:
            show(path.name, picture)
    if milliseconds:
        console.print(stage_table(milliseconds))
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
