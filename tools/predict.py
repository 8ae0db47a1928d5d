"""Label pictures, folders of them, and videos with any model of mmseg, mmdet or mmsparse.

What is found is written below --out in each form of --out-format; names and folders are kept.
What is already there is skipped, so that the same command goes on after an interruption. Files
that fail are listed at the end, and the exit code is 1; the others are done.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import (
    add_backend_options,
    add_cfg_options,
    add_launcher_option,
    check_config,
    find_checkpoint,
    join_processes,
    leave,
    one_line_errors,
    parse_inputs,
    stop,
)

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    from mmengine.model import BaseModel
    from rich.table import Table

    from mmsparse.apis import Outcome
    from mmsparse.engine.stages import StageClock


def parse_args() -> argparse.Namespace:
    """The command line."""
    from mmsparse.engine.formats import FORMATS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s CONFIG [CHECKPOINT] INPUT [INPUT ...] --out DIR [options]')
    parser.add_argument('config', metavar='CONFIG',
                        help='a config file; mmsparse::NAME, mmseg::NAME or mmdet::NAME of an '
                             'installed package; or mmsparse://NAME of the zoo')
    parser.add_argument('inputs', metavar='[CHECKPOINT] INPUT', nargs='+',
                        help='the weights (.pth or a URL; left out where the config is '
                             'mmsparse://NAME, or names those of all its parts), then pictures, '
                             "videos, folders, and patterns such as 'data/**/*.png'")
    parser.add_argument('--out', type=Path, required=True, help='folder for what is found')
    parser.add_argument('--out-format', nargs='+', choices=FORMATS, default=(), metavar='FORMAT',
                        help=f'one or more of {", ".join(FORMATS)} (default: labels of a '
                             'segmentor, coco of a detector)')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='leave out objects with a lower score (default: 0.3)')
    parser.add_argument('--upright', action='store_true',
                        help='turn pictures as their EXIF orientation says (default: as the '
                             "model's test pipeline does; segmentors' do not)")
    parser.add_argument('--white', type=float, metavar='VALUE',
                        help='of pictures of more than 8 bits, the value that is white, such as '
                             '65535, 4095 or 1')
    parser.add_argument('--bands', type=int, nargs='+', metavar='NUMBER',
                        help='of georeferenced or large TIFFs, the bands that are red, green and '
                             'blue, such as 3 2 1, or one for gray')
    parser.add_argument('--window', type=int, default=1024,
                        help='of such TIFFs, the side of what is labeled at a time, in pixels '
                             '(default: 1024)')
    parser.add_argument('--halo', type=int,
                        help='of such TIFFs, pixels that a window shares with its neighbors on '
                             'each side (default: as far as the network sees, if that is at most '
                             'a quarter of the window, else an eighth)')
    parser.add_argument('--times', action='store_true',
                        help='print the time that each stage of a SparseRefine model takes')
    parser.add_argument('--force', action='store_true', help='write over files that are there')
    parser.add_argument('--device', help="such as 'cuda:0' or 'cpu' (default: a GPU if there is "
                                         'one)')
    add_backend_options(parser)
    add_cfg_options(parser)
    add_launcher_option(parser)
    args = parse_inputs(parser, 'pictures, videos, folders or patterns')
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must be from 0 to 1, got {args.score_thr}')
    if args.white is not None and not args.white > 0:
        parser.error(f'--white must be above 0, got {args.white}')
    return args


def build_model(args: argparse.Namespace) -> BaseModel:
    """The model with its weights, ready for inference."""
    from mmsparse.apis import init_model

    try:
        checkpoint = find_checkpoint(
            args.config, args.checkpoint, cfg_options=args.cfg_options)
        with one_line_errors():
            return init_model(args.config, checkpoint, args.device, args.cfg_options,
                              backend=args.backend, dtype=args.dtype)
    except (FileNotFoundError, ValueError) as error:
        stop(str(error))


def clock_of(model: BaseModel) -> StageClock:
    """What times the stages of a SparseRefine model; another one has none."""
    from mmsparse.engine.stages import StageClock

    try:
        return StageClock(model)
    except TypeError as error:
        stop(f'--times: {error}')


def report(outcome: Outcome, args: argparse.Namespace) -> None:
    """Say what was done; failures and warnings on stderr."""
    name = Path(sys.argv[0]).name
    there = f', {outcome.skipped} were there (--force labels them again)' * bool(outcome.skipped)
    print(f'pictures labeled: {outcome.written}{there}; {args.out} holds the results')
    if outcome.turned and not args.upright:
        print(f'{name}: pictures with an EXIF orientation: {len(outcome.turned)}, the first is '
              f'{outcome.turned[0]}; see --upright', file=sys.stderr)
    if outcome.failed:
        print(f'{name}: pictures that failed: {len(outcome.failed)}', *outcome.failed, sep='\n  ',
              file=sys.stderr)
    if outcome.stopped:
        print(f'{name}: {args.out} cannot be written to: stopped. The same command goes on',
              file=sys.stderr)


def stage_table(milliseconds: dict[str, list[float]]) -> Table:
    """Median time of each stage over the pictures, and its share of their sum.

    The first picture, which allocates and loads, is left out if there are others.
    """
    from rich.table import Table

    count = len(next(iter(milliseconds.values())))
    medians = {title: statistics.median(times[1:] or times)
               for title, times in milliseconds.items()}
    total = sum(medians.values())
    table = Table('stage', title=f'Median of {count - 1} pictures' if count > 1 else
                  'First picture')
    for heading in ('ms', 'share'):
        table.add_column(heading, justify='right')
    for title, time in medians.items():
        table.add_row(title, f'{time:.1f}', f'{time / total:.1%}')
    table.add_section()
    table.add_row('all stages', f'{total:.1f}', f'{1:.1%}')
    return table


def main() -> None:
    """Label everything; exit code 1 if a picture failed."""
    args = parse_args()
    check_config(args.config)
    join_processes(args)

    from mmengine.dist import is_main_process

    from mmsparse.apis import predict
    from mmsparse.engine.inputs import find_inputs

    try:
        find_inputs(args.inputs, args.out)  # what is wrong there is said before a model is loaded
        model = build_model(args)
        clock = nullcontext()
        if args.times:
            clock = clock_of(model)
        with clock:
            outcome = predict(
                model, args.inputs, args.out, formats=args.out_format, force=args.force,
                score_thr=args.score_thr, upright=args.upright, white=args.white,
                bands=args.bands, window=args.window, halo=args.halo,
                show_progress=True)
    except (OSError, ValueError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted; what lies in {args.out} is whole, and the '
              'same command goes on', file=sys.stderr)
        sys.exit(130)
    if is_main_process():
        report(outcome, args)
        if args.times and outcome.written:
            from rich.console import Console
            Console().print(stage_table(clock.milliseconds))
    leave(failed=bool(outcome.failed))


if __name__ == '__main__':
    main()
