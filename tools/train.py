"""Train any config whose default scope is mmseg or mmdet, with mmsparse's components at hand."""

from __future__ import annotations

import argparse

from command_line import (
    add_common_arguments,
    build_runner,
    check_checkpoint,
    find_checkpoint,
    load_config,
    one_line_errors,
    stop,
)


def parse_args() -> argparse.Namespace:
    """The command line, as in mmseg's ``tools/train.py``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('--resume', action='store_true',
                        help='go on from the latest checkpoint in the work folder')
    parser.add_argument('--amp', action='store_true', help='train with mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='skip validation')
    return parser.parse_args()


def main() -> None:
    """Merge the command line into the config and run mmengine's runner."""
    args = parse_args()
    cfg = load_config(args)
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    elif not args.resume:  # training goes on from the weights of a config of the zoo
        cfg.load_from = find_checkpoint(args.config, None, required=False)
    if args.resume:
        cfg.resume = True
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
