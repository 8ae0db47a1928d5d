"""Evaluate a checkpoint of any config whose default scope is mmseg or mmdet."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from command_line import (
    add_common_arguments,
    build_runner,
    check_checkpoint,
    find_checkpoint,
    load_config,
    names_weights,
    one_line_errors,
    stop,
)

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    """The command line, as in mmseg's ``tools/test.py``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', nargs='?',
                        help='a checkpoint: a file or a URL; an mmsparse.SegEnsemble needs none, '
                             'its config names those of its members; nor does mmsparse://NAME '
                             'of the zoo')
    parser.add_argument('--out', help='where predictions go: a folder (mmseg) or a .pkl (mmdet)')
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', help='save painted predictions here')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between windows')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args()


def paint(cfg: Config, args: argparse.Namespace) -> None:
    """Turn the visualization hook on."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        stop('--show and --show-dir need default_hooks.visualization in the config')
    if hook.get('type') == 'SegVisualizationHook':  # it follows EXIF's rotation, the loader not
        hook.type = 'mmsparse.RefinementVisualizationHook'
    hook.draw = True
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        if cfg.get('default_scope') == 'mmdet':
            hook.test_out_dir = args.show_dir
        else:
            cfg.visualizer.save_dir = args.show_dir


def evaluators(cfg: Config) -> list:
    """The metrics of the test, one or several in the config."""
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def augment(cfg: Config) -> None:
    """Wrap the model and the test pipeline for test-time augmentation."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        stop(f'--tta needs {" and ".join(missing)} in the config')
    if cfg.model.type == 'mmsparse.RefinedSegmentor':
        stop('--tta: a RefinedSegmentor predicts classes without scores, which have no average; '
             'test it without')
    if cfg.tta_model.type in ('SegTTAModel', 'mmseg.SegTTAModel'):
        cfg.tta_model.type = 'mmsparse.SegTTAModel'  # right for heads of one channel, too
    from mmsparse.engine.plain_datasets import plain_datasets

    for dataset in plain_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    if 'test_cfg' in cfg.model and 'seg_logits' in cfg.model.test_cfg:
        cfg.model.test_cfg.seg_logits = True  # what is averaged
    # Averaged predictions have no one selection and no one low-resolution prediction.
    single = ('mmsparse.LowResIoUMetric', 'mmsparse.SelectionLimitIoUMetric',
              'mmsparse.SelectorMetric')
    if isinstance(cfg.test_evaluator, list):
        cfg.test_evaluator = [e for e in cfg.test_evaluator if e.type not in single]
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def save_predictions(cfg: Config, out: str) -> None:
    """Have the metrics write predictions to ``out``, each scope in its own way."""
    if cfg.get('default_scope') == 'mmdet':
        if not out.endswith(('.pkl', '.pickle')):
            stop(f'--out {out}: mmdet writes one file, whose name ends in .pkl')
        dump = dict(type='mmdet.DumpDetResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators(cfg), dump]
    else:
        # Ours beside mmseg's metric either write nothing or other maps under the same names.
        for evaluator in (e for e in evaluators(cfg) if not e.type.startswith('mmsparse.')):
            evaluator.output_dir = out
            evaluator.keep_results = True


def load_members(runner: Runner, checkpoints: list[str]) -> None:
    """The own weights of each member of an ensemble."""
    from mmsparse.checkpoint import load_weights
    from mmsparse.engine.loading_hook import unwrapped

    segmentors = unwrapped(runner.model).segmentors
    for number, (segmentor, checkpoint) in enumerate(zip(segmentors, checkpoints, strict=True)):
        load_weights(segmentor, checkpoint, f'segmentors[{number}].init_cfg.checkpoint')


def main() -> None:
    """Merge the command line into the config and run mmengine's runner."""
    args = parse_args()
    args.checkpoint = find_checkpoint(args.config, args.checkpoint, required=False)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    members = []
    if args.checkpoint is None and not names_weights(cfg.model):
        if cfg.model.type != 'mmsparse.SegEnsemble':
            stop(f'{args.config} needs a checkpoint')
        members = [member.get('init_cfg', {}).get('checkpoint', 'of a member')
                   for member in cfg.model.segmentors]
        for member in members:
            check_checkpoint(member)
    if args.show or args.show_dir:
        paint(cfg, args)
    if args.tta:
        augment(cfg)
    if args.out is not None:
        save_predictions(cfg, args.out)

    with one_line_errors():
        runner = build_runner(cfg, strict=True)
        if members:
            load_members(runner, members)
        runner.test()


if __name__ == '__main__':
    main()
