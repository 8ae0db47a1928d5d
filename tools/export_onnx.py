"""Write a segmentor as ONNX at one image size, once the file has given what the model predicts.

Input `image`: float32 [1, 3, H, W], 0 to 255, RGB for configs with `bgr_to_rgb`: the picture as the
test pipeline hands it to the network; normalization, padding and sliding windows are inside.
Output `logits` [1, K, H, W], of a head with one channel its probability, or with --include-argmax
`classes`, int64 [1, H, W]. For TensorRT: `trtexec --onnx=model.onnx --fp16
--saveEngine=model.plan`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import check_config, find_checkpoint, one_line_errors, stop

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.dataset import Compose


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

    from mmsparse.engine.config import read_config
    from mmsparse.engine.export import export_onnx
    from mmsparse.engine.loading import load_model
    from mmsparse.models.crm import RefinedSegmentor
    from mmsparse.models.sparserefine import SparseRefineSegmentor

    with one_line_errors():
        model = load_model(args.config, args.checkpoint, torch.device('cpu'), args.cfg_options)
    for part in model.modules():
        if isinstance(part, SparseRefineSegmentor):
            stop('sparse convolutions have no ONNX operators; export the low-resolution segmentor '
                 'by its own config')
        if isinstance(part, RefinedSegmentor):
            stop('a RefinedSegmentor crops the objects that it finds, which no ONNX file can; '
                 'export the segmentor by its own config')
    pipeline = keeping_pipeline(read_config(args.config, args.cfg_options), tuple(args.shape))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        difference = export_onnx(
            model, args.out, tuple(args.shape), args.include_argmax, pipeline)
    except (ImportError, TypeError, ValueError) as error:
        stop(str(error))
    what = 'share of other classes' if args.include_argmax else 'largest relative difference'
    print(f'written to {args.out}; {what} in onnxruntime: {difference:.1e}')


def keeping_pipeline(cfg: Config, size: tuple[int, int]) -> Compose | None:
    """The config's test pipeline for pictures in memory, if it keeps their size ``(H, W)``."""
    import numpy as np
    from mmengine.dataset import Compose

    from mmsparse.apis import preparation, tested_dataset

    if cfg.get('test_dataloader') is None:
        return None
    pipeline = Compose([dict(type='LoadImageFromNDArray'), *preparation(tested_dataset(cfg))])
    height, width = pipeline(dict(img=np.zeros((*size, 3), np.uint8)))['inputs'].shape[1:]
    if (height, width) == size:
        return pipeline
    print(f'note: the test pipeline makes {height}x{width} of a picture of {size[0]}x{size[1]}; '
          f'the file takes what comes out of it, of {size[0]}x{size[1]}')
    return None


if __name__ == '__main__':
    main()
