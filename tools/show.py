"""Write a page for each picture: a model's result to look at in a browser, in one HTML file.

Before and after under a slider, at full size; of a SparseRefine model also where its selector
looked, what another threshold would select, and where the time goes; with labels, errors fixed and
made. Opened from the disk: no server, no network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import (
    add_backend_options,
    check_config,
    find_checkpoint,
    one_line_errors,
    parse_inputs,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    import numpy as np
    from mmseg.models.segmentors import BaseSegmentor
    from mmseg.structures import SegDataSample

    from mmsparse.models.sparserefine import SparseRefineSegmentor
    from mmsparse.visualization import SelectorScore


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s CONFIG [CHECKPOINT] INPUT [INPUT ...] [options]')
    parser.add_argument('config', metavar='CONFIG',
                        help='of a segmentor: a file, or mmsparse://NAME of the zoo')
    parser.add_argument('inputs', metavar='[CHECKPOINT] INPUT', nargs='+',
                        help='the weights (.pth or a URL; left out where the config is '
                             "mmsparse://NAME), then pictures, folders, and patterns such as "
                             "'data/**/*.png'")
    parser.add_argument('--labels', type=Path, metavar='PATH',
                        help='the true classes: a file, or a folder where they have the names of '
                             "their pictures, or those that the config's test set gives them")
    parser.add_argument('--out', type=Path, default=Path(),
                        help='folder for the pages, NAME.html (default: the current one)')
    parser.add_argument('--force', action='store_true', help='write over files that exist')
    parser.add_argument('--device', help="such as 'cuda:0' or 'cpu' (default: a GPU if there is "
                                         'one)')
    add_backend_options(parser)
    return parse_inputs(parser, 'pictures, folders or patterns')


def facts_of(args: argparse.Namespace) -> dict[str, str]:
    """What a page says of model and checkpoint; a config may name the weights of its parts."""
    return dict(model=Path(args.config).stem,
                checkpoint=Path(args.checkpoint or args.config).name)


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


def main() -> None:
    """A page for every picture; exit code 1 if one failed."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)

    from mmsparse.apis import inference
    from mmsparse.engine.inputs import find_inputs
    from mmsparse.engine.label_files import find_label, read_label
    from mmsparse.engine.whole_files import write_whole
    from mmsparse.models import SparseRefineSegmentor
    from mmsparse.pictures import read_image

    try:
        inputs = find_inputs(args.inputs, args.out)
    except (OSError, ValueError) as error:
        stop(str(error))
    if args.labels is not None and not args.labels.exists():
        stop(f'--labels {args.labels} does not exist')
    if args.labels is not None and not args.labels.is_dir() and len(inputs) > 1:
        stop(f'--labels {args.labels} is one file, but there are {len(inputs)} pictures: name a '
             'folder')
    model = segmentor(args)
    facts = facts_of(args)
    warm, failed = not isinstance(model, SparseRefineSegmentor), False
    for one in inputs:
        place = args.out / one.name.with_suffix('.html')
        try:
            if place.exists() and not args.force:
                raise FileExistsError(f'{place} exists; --force writes over it')
            if one.is_video:
                raise ValueError('a page shows a picture, not a video')
            image = read_image(one.file)
            label = None if args.labels is None else read_label(
                model.cfg, find_label(model.cfg, args.labels, one.file), image.shape[:2],
                *class_numbers(model))
            if not warm:  # the first forward pass allocates and loads: its stages are not timed
                inference(model, image)
                warm = True
            page = make_page(model, image, label, title=one.file.name, facts=facts)
            write_whole(place, page.encode())
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            print(f'{Path(sys.argv[0]).name}: {one.file}: {error}', file=sys.stderr)
            failed = True
            continue
        print(place)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
