"""Write a segmentor as ONNX at one image size, and check the file with onnxruntime.

Input `image`: float32 [1, 3, H, W], 0 to 255, RGB for configs with `bgr_to_rgb`; the normalization
is inside. Output `logits` [1, K, H, W], or with --include-argmax `classes`, int64 [1, H, W]. For
TensorRT: `trtexec --onnx=model.onnx --fp16 --saveEngine=model.plan`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from command_line import check_config, find_checkpoint, one_line_errors, stop

TOLERANCE = 1e-3  # relative, of float32 logits; share of pixels with another class


def parse_args() -> argparse.Namespace:
    """The command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of an mmseg model')
    parser.add_argument('checkpoint', nargs='?',
                        help='without, the weights are random, or those of mmsparse://NAME of the '
                             'zoo')
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'),
                        help='size of the image (default: 1024 2048)')
    parser.add_argument('--include-argmax', action='store_true', help='give classes, not logits')
    parser.add_argument('--out', type=Path, default=Path('model.onnx'))
    parser.add_argument('--force', action='store_true', help='write over a file that exists')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override those of the config')
    return parser.parse_args()


def main() -> None:
    """Build, write, compare."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint, required=False)
    if args.out.exists() and not args.force:
        stop(f'{args.out} exists; --force writes over it')
    if min(args.shape) < 1:
        stop(f'--shape must be positive, got {args.shape}')

    import torch

    from mmsparse.engine.benchmark import load_model
    from mmsparse.engine.export import export_onnx

    with one_line_errors():
        model = load_model(args.config, args.checkpoint, torch.device('cpu'), args.cfg_options)
    if hasattr(model, 'selector'):
        stop('sparse convolutions have no ONNX operators; export the low-resolution segmentor by '
             'its own config')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        difference = export_onnx(model, args.out, tuple(args.shape), args.include_argmax)
    except ImportError as error:
        stop(str(error))
    what = 'share of other classes' if args.include_argmax else 'largest relative difference'
    print(f'written to {args.out}; {what} in onnxruntime: {difference:.1e}')
    if not difference < TOLERANCE:
        stop(f'the file differs from the model by more than {TOLERANCE:g}')


if __name__ == '__main__':
    main()
