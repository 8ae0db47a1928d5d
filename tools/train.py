"""Train any config whose default scope is mmseg or mmdet, with mmsparse's components at hand."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from command_line import (
    add_common_arguments,
    build_runner,
    check_checkpoint,
    find_checkpoint,
    load_config,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """The command line, as in mmseg's ``tools/train.py``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('--resume', action='store_true',
                        help='go on from the latest checkpoint in the work folder')
    parser.add_argument('--amp', action='store_true', help='train with mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='skip validation')
    return parser.parse_args()


def resume(cfg: Config, named: bool) -> None:
    """Go on from the latest checkpoint in the work folder, or from ``load_from``.

    mmengine prefers ``load_from``, which in a config is where the training began.

    Args:
        cfg: changed in place.
        named: ``load_from`` is of the command line: that checkpoint is meant.
    """
    from mmengine.runner import find_latest_checkpoint

    cfg.resume = True
    if cfg.get('load_from') and not named:
        if find_latest_checkpoint(cfg.work_dir) is None:
            cfg.resume = False
        else:
            cfg.load_from = None


def main() -> None:
    """Merge the command line into the config and run mmengine's runner."""
    args = parse_args()
    cfg = load_config(args)
    if args.resume:
        resume(cfg, named='load_from' in (args.cfg_options or {}))
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    elif not args.resume:  # training goes on from the weights of a config of the zoo
        cfg.load_from = find_checkpoint(args.config, None, required=False)
    if args.amp:
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            stop(f'--amp replaces an OptimWrapper; this config has a {wrapper}')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None

    from mmseg.models.segmentors import EncoderDecoder

    from mmsparse.engine.loading_hook import unwrapped
    from mmsparse.labels import check_first_labels

    with one_line_errors():
        runner = build_runner(cfg, strict=False)
        model = unwrapped(runner.model)
        if isinstance(model, EncoderDecoder):  # SparseRefineSegmentor does it by itself
            check_first_labels(model)
        runner.train()


if __name__ == '__main__':
    main()
