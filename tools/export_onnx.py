"""Write a model as one ONNX file for one size of images, once it has given what the model predicts.

Segmentors of mmseg, SparseRefine as a whole (it also gives which pixels it refined), CRM's refiner.

Input `image`: float32 [1, 3, H, W], 0 to 255, RGB for configs with `bgr_to_rgb`: the picture as the
test pipeline hands it to the network; normalization, padding and sliding windows are inside. A
refiner also takes `mask`, float32 [1, H, W], 0 to 1.
Output `logits` [1, K, H, W], of a head with one channel its probability, or with --include-argmax
`classes`, int64 [1, H, W]; of SparseRefine also `selected`, bool [1, H, W]; of a refiner
`probability`, float32 [1, H, W]. Beside the file stands run_onnx.py, which labels pictures by it
and needs numpy, onnxruntime and opencv alone. How TensorRT and OpenVINO take it: docs/export.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import add_cfg_options, check_config, find_checkpoint, one_line_errors, stop

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.dataset import Compose


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of an mmseg model or a CRMRefiner')
    parser.add_argument('checkpoint', nargs='?',
                        help='without, the weights are random, or those of mmsparse://NAME of the '
                             'zoo')
    parser.add_argument('--shape', type=int, nargs=2, default=(1024, 2048), metavar=('H', 'W'),
                        help='size of the image (default: 1024 2048)')
    parser.add_argument('--include-argmax', action='store_true', help='give classes, not logits')
    parser.add_argument('--out', type=Path, default=Path('model.onnx'))
    parser.add_argument('--force', action='store_true', help='write over a file that exists')
    add_cfg_options(parser)
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
    from mmseg.models.segmentors import BaseSegmentor

    from mmsparse.engine.config import read_config
    from mmsparse.engine.export import export_onnx, exported
    from mmsparse.engine.loading import load_model

    with one_line_errors():
        model = load_model(args.config, args.checkpoint, torch.device('cpu'), args.cfg_options)
    cfg, size = read_config(args.config, args.cfg_options), tuple(args.shape)
    pipeline, meta = None, {}
    try:
        exported(model, args.include_argmax)  # what has no ONNX form is refused before its pipeline
        if isinstance(model, BaseSegmentor):
            pipeline, meta = keeping_pipeline(cfg, size), model.dataset_meta or meta_of(cfg)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        agreement = export_onnx(model, args.out, size, args.include_argmax, pipeline, meta)
    except (ImportError, TypeError, ValueError) as error:
        stop(str(error))
    what = 'share of other classes' if args.include_argmax else 'largest relative difference'
    print(f'written to {args.out}; {what} in onnxruntime: {agreement.difference:.1e}')
    if agreement.density is not None:
        print(f'on a made picture of which it refines {agreement.density:.1%}; share of the pixels '
              f'that the file or the model alone refines: {agreement.reselected:.1e}')


def meta_of(cfg: Config) -> dict:
    """Names and colors of the classes by the config's test dataset; empty if it has none."""
    from mmseg.registry import DATASETS

    from mmsparse.apis import tested_dataset

    if cfg.get('test_dataloader') is None:
        return {}
    dataset = tested_dataset(cfg)
    cls = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    return getattr(cls, 'METAINFO', {}) | dict(dataset.get('metainfo') or {})


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
