"""What the converters share: read, rename, compare with the config's model, write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import ConfigDict
    from torch import Tensor, nn

    State = dict[str, Tensor]

# What files call the state dict that they hold beside other things.
WRAPPERS = ('state_dict', 'model_state_dict')


def stop(message: str) -> None:
    """End with one line on stderr and exit code 1."""
    sys.exit(f'{Path(sys.argv[0]).name}: {message}')


def misfits(wanted: State, found: State) -> list[str]:
    """Entries that the checkpoint lacks, has too many, or has in another shape."""
    lines = []
    for title, keys in (('lacks', wanted.keys() - found.keys()),
                        ('has, and the config has not,', found.keys() - wanted.keys())):
        keys = sorted(k for k in keys if not k.endswith('num_batches_tracked'))
        if keys:
            lines.append(f'the checkpoint {title} {len(keys)} entries, the first is {keys[0]}')
    shapes = [k for k in sorted(wanted.keys() & found.keys())
              if wanted[k].shape != found[k].shape]
    if shapes:
        key = shapes[0]
        lines.append(f'{len(shapes)} entries have other shapes, the first is {key}: '
                     f'{list(found[key].shape)} in the weights, {list(wanted[key].shape)} in the '
                     'config')
    return lines


def run(description: str, config: str, convert: Callable[[State], State],
        advice: Callable[[State, State], list[str]] = lambda wanted, found: [],
        settings: Callable[[State, nn.Module, ConfigDict], list[str]] = lambda *_: [],
        preset: Callable[[State], str] | None = None,
        parts: tuple[str, ...] = ('',)) -> None:
    """The command: ``checkpoint config out [--force]``.

    Args:
        description: for ``--help``.
        config: name of a config, for the help.
        convert: the authors' state dict, without ``module.``, to ours; a ``ValueError`` says what
            is not theirs.
        advice: what does not fit, in terms of the config's settings.
        settings: what no entry shows but would make another function of them, given the authors'
            state dict, the config's model (without memory) and its options.
        preset: which config the authors' state dict is of, to end a refusal.
        parts: what the names of those of our entries begin with that the authors' file holds.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help="the authors' file")
    parser.add_argument('config', help=f'a config, for example {config}')
    parser.add_argument('out', type=Path, help='where the renamed weights go')
    parser.add_argument('--force', action='store_true', help='write over a file that exists')
    args = parser.parse_args()
    for path in (args.checkpoint, Path(args.config)):
        if not path.is_file():
            stop(f'{path} does not exist')
    if args.out.exists() and not args.force:
        stop(f'{args.out} exists; --force writes over it')

    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    from mmsparse.checkpoint import load_checkpoint

    state = load_checkpoint(args.checkpoint)
    for wrapper in WRAPPERS:
        state = state.get(wrapper, state)
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    try:
        found = convert(state)
    except ValueError as error:
        stop(f'{args.checkpoint}: {error}')
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith(parts)}
    problems = (advice(wanted, found) + misfits(wanted, found)
                or settings(state, model, cfg.model))
    if problems and preset:
        problems.append(preset(state))
    if problems:
        stop(f'{args.checkpoint} does not fit {args.config}:\n  ' + '\n  '.join(problems))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=found, meta={}), args.out)
    print(f'written to {args.out}: {len(found)} entries')
