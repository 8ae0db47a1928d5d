"""Write a page for each picture: a model's result to look at in a browser, in one HTML file.

Before and after under a slider, at full size; of a SparseRefine model also where its selector
looked, what another threshold would select, and where the time goes; with labels, errors fixed and
made. Opened from the disk: no server, no network.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from mmengine.config import ConfigDict
    from mmseg.models.segmentors import BaseSegmentor
    from mmseg.structures import SegDataSample

    from mmsparse.models.sparserefine import SparseRefineSegmentor
    from mmsparse.visualization import SelectorScore

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a segmentor: a file, or mmsparse://NAME of the zoo')
    parser.add_argument('words', nargs='+', metavar='[checkpoint] input',
                        help='its checkpoint, left out where the config is mmsparse://NAME; then '
                             'pictures, and folders of them')
    parser.add_argument('--labels', type=Path, metavar='PATH',
                        help='the true classes: a file, or a folder where they have the names of '
                             "their pictures, or those that the config's test set gives them")
    parser.add_argument('--out', type=Path, default=Path(),
                        help='folder for NAME.html (default: the current one)')
    parser.add_argument('--force', action='store_true', help='write over files that exist')
    parser.add_argument('--device', help="such as 'cuda:0' or 'cpu' (default: a GPU if there is "
                                         'one)')
    add_backend_options(parser)
    args = parser.parse_intermixed_args()  # options may stand between the positionals
    first = args.words[0]
    named = args.config.startswith(ZOO) and not first.startswith(ZOO) and (
        Path(first).suffix not in ('.pth', '.pt'))
    args.checkpoint = None if named else args.words.pop(0)
    if not args.words:
        parser.error('no picture is named')
    return args


def find_pictures(words: list[str]) -> list[str]:
    """The given files and addresses, and the pictures in the given folders, in order."""
    pictures: list[str] = []
    for word in words:
        if not Path(word).is_dir():
            pictures.append(word)
            continue
        inside = [str(file) for file in sorted(Path(word).iterdir())
                  if file.suffix.lower() in SUFFIXES]
        if not inside:
            stop(f'folder {word} holds no picture ({", ".join(SUFFIXES)})')
        pictures += inside
    return pictures


def place_pages(pictures: list[str], folder: Path) -> dict[str, Path]:
    """Where the page of each picture goes; no two to the same place."""
    if folder.is_file() or (folder.suffix == '.html' and not folder.is_dir()):
        stop(f'--out {folder} must be a folder')
    places: dict[str, Path] = {}
    first: dict[Path, str] = {}
    for picture in pictures:
        place = folder / f'{Path(picture).stem}.html'
        if first.setdefault(place, picture) != picture:
            stop(f'{first[place]} and {picture} would both be written to {place}')
        places[picture] = place
    return places


def segmentor(args: argparse.Namespace) -> BaseSegmentor:
    """The model, told to keep a selector's score, with a name and a color for each class."""
    from mmdet.visualization.palette import get_palette
    from mmseg.models.segmentors import BaseSegmentor

    from mmsparse.apis import init_model
    from mmsparse.models.sparserefine import SparseRefineSegmentor

    try:
        with one_line_errors():
            model = init_model(args.config, args.checkpoint, args.device, backend=args.backend,
                               dtype=args.dtype)
    except (FileNotFoundError, ValueError) as error:
        stop(str(error))
    if not isinstance(model, BaseSegmentor):
        stop(f'{args.config} builds {type(model).__name__}: it labels no pixels, which is what a '
             'page shows')
    classes, palette = (model.dataset_meta.get(key) or () for key in ('classes', 'palette'))
    count, _ = class_numbers(model)
    if len(classes) != count:
        stop(f'{args.config}: the model has {count} classes, but checkpoint or test set name '
             f'{len(classes)}')
    if len(palette) != len(classes):  # a dataset without one gets random colors, as in mmseg
        palette = get_palette('random', len(classes))
    model.dataset_meta = dict(model.dataset_meta, palette=palette)
    if isinstance(model, SparseRefineSegmentor):
        model.test_cfg['keep_score'] = True
    return model


def class_numbers(model: BaseSegmentor) -> tuple[int, int]:
    """How many classes there are, and the label that counts nowhere."""
    from mmsparse.hosts import ignore_index_of, last_head
    from mmsparse.models import RefinedSegmentor, SparseRefineSegmentor

    if isinstance(model, (RefinedSegmentor, SparseRefineSegmentor)):  # those of its segmentor
        return model.num_classes, model.ignore_index
    return max(last_head(model).num_classes, 2), ignore_index_of(model)


def make_page(model: BaseSegmentor, image: np.ndarray, label: np.ndarray | None = None, *,
              title: str, facts: dict[str, str]) -> str:
    """One picture labeled by a model of :func:`segmentor`, as HTML.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        label: true classes ``[H, W]``.
        title: of the page.
        facts: what it is to say of model and checkpoint.
    """
    from mmsparse.apis import inference
    from mmsparse.engine.stages import StageClock
    from mmsparse.models import SparseRefineSegmentor
    from mmsparse.visualization import html_page

    about: dict[str, Any] = dict(
        title=title, label=label, ignore_index=class_numbers(model)[1], facts=facts, **{
            key: model.dataset_meta[key] for key in ('classes', 'palette')})
    if not isinstance(model, SparseRefineSegmentor):
        sample = inference(model, image)
        if 'coarse_sem_seg' in sample:  # a RefinedSegmentor's
            about |= dict(before=pixels(sample, 'coarse_sem_seg'), before_name='Coarse',
                          result_name='Refined')
        return html_page(image, pixels(sample, 'pred_sem_seg'), **about)
    clock = StageClock(model)
    with clock:
        sample = inference(model, image)
    milliseconds = {title: times[-1] for title, times in clock.milliseconds.items()}
    return html_page(
        image, pixels(sample, 'pred_sem_seg'), before=pixels(sample, 'low_res_sem_seg'),
        before_name='Low resolution', result_name='Refined', score=score_of(model, sample),
        milliseconds=milliseconds, **about)


def pixels(sample: SegDataSample, name: str) -> np.ndarray:
    """A map of a data sample, ``[1, H, W]`` there, as array ``[H, W]``."""
    return sample.get(name).data[0].cpu().numpy()


def score_of(model: SparseRefineSegmentor, sample: SegDataSample) -> SelectorScore:
    """What the selector saw and took."""
    from mmsparse.sparse import EntropySelector
    from mmsparse.visualization import SelectorScore

    selector = model.selector
    return SelectorScore(
        pixels(sample, 'selection_score'), pixels(sample, 'selected'),
        threshold=sample.get('selection_threshold', selector.threshold),  # what a budget made of it
        highest=selector.highest_score, threshold_name=selector.THRESHOLD,
        name='Entropy in nats' if isinstance(selector, EntropySelector) else 'Score')


def tested_like(model: BaseSegmentor, key: str) -> Any:
    """An argument of the config's test set, or its default; ``None`` where it has neither."""
    from mmseg.registry import DATASETS

    from mmsparse.apis import tested_dataset

    dataset: ConfigDict = tested_dataset(model.cfg)
    if key in dataset:
        return dataset[key]
    cls = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    for base in cls.__mro__:  # a subclass may hand on what it does not name
        parameter = inspect.signature(base.__init__).parameters.get(key)
        if parameter is not None:
            return parameter.default
    return None


def label_file(model: BaseSegmentor, labels: Path, picture: str) -> Path:
    """The label of a picture: the file itself, or that of its name in the folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if not labels.is_dir():
        return labels
    name, suffix = Path(picture).name, tested_like(model, 'img_suffix') or ''
    names = [f'{Path(picture).stem}.png']
    if suffix and name.endswith(suffix):  # as CityscapesDataset pairs them
        names.insert(0, name.removesuffix(suffix) + tested_like(model, 'seg_map_suffix'))
    for candidate in names:
        if (labels / candidate).is_file():
            return labels / candidate
    raise FileNotFoundError(f'folder {labels} holds no label of it: {" or ".join(names)}')


def read_label(model: BaseSegmentor, path: Path, size: tuple[int, int]) -> np.ndarray:
    """The label map ``[H, W]`` in a file, read and renumbered as the config's test set would.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds other numbers than those of classes, or has another size.
    """
    import torch
    from mmseg.registry import DATASETS, TRANSFORMS

    from mmsparse.apis import tested_dataset, transform_name
    from mmsparse.labels import LabelCheck

    dataset = tested_dataset(model.cfg)
    loaders = [step for step in dataset['pipeline']
               if transform_name(step['type']) == 'LoadAnnotations']
    cls = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    load = TRANSFORMS.build(loaders[0] if loaders else dict(type='LoadAnnotations'))
    meta = dict(seg_map_path=str(path),
                reduce_zero_label=bool(tested_like(model, 'reduce_zero_label')))
    values = load(dict(meta, seg_fields=[], label_map=cls.get_label_map(
        (dataset.get('metainfo') or {}).get('classes'))))['gt_seg_map']
    check = LabelCheck(*class_numbers(model))
    return check(torch.from_numpy(values.astype('int64'))[None], size, meta).numpy()


def main() -> None:
    """A page for every picture; exit code 1 if one failed."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    places = place_pages(find_pictures(args.words), args.out)
    if args.labels is not None and not args.labels.exists():
        stop(f'--labels {args.labels} does not exist')
    if args.labels is not None and not args.labels.is_dir() and len(places) > 1:
        stop(f'--labels {args.labels} is one file, but there are {len(places)} pictures: name a '
             'folder')

    from mmsparse.apis import inference
    from mmsparse.models import SparseRefineSegmentor
    from mmsparse.pictures import read_image

    model = segmentor(args)
    facts = dict(model=Path(args.config).stem, checkpoint=Path(args.checkpoint).name)
    warm, failed = not isinstance(model, SparseRefineSegmentor), False
    for picture, place in places.items():
        try:
            if place.exists() and not args.force:
                raise FileExistsError(f'{place} exists; --force writes over it')
            image = read_image(picture)
            label = None if args.labels is None else read_label(
                model, label_file(model, args.labels, picture), image.shape[:2])
            if not warm:  # the first forward pass allocates and loads: its stages are not timed
                inference(model, image)
                warm = True
            write_whole(place, make_page(model, image, label, title=Path(picture).name,
                                         facts=facts))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            print(f'{Path(sys.argv[0]).name}: {picture}: {error}', file=sys.stderr)
            failed = True
            continue
        print(place)
    sys.exit(1 if failed else 0)


def write_whole(path: Path, text: str) -> None:
    """Write a file and the folder that it lies in; what is interrupted leaves none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    try:
        part.write_text(text, encoding='utf-8')
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == '__main__':
    main()
