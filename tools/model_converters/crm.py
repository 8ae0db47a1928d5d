"""Rename the weights of CRM's authors for a CRM config of this package.

For people who hold the checkpoint (its licence does not allow commercial use); none is distributed
here. The encoder's unused last stage is dropped. Names inside the fusion are not known here: its
convolutions are told apart by their shapes, the norms go with the convolution before them.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = 'crm_r50_2xb6-45k_saliency-224x224.py'


def stop(message: str) -> None:
    """End with one line on stderr and exit code 1."""
    sys.exit(f'{Path(sys.argv[0]).name}: {message}')


def rename_fusion(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of the fusion under our names.

    Raises:
        ValueError: a convolution has no place in our fusion.
    """
    places = {(64, 64, 1, 1): 'branches.0', (64, 256, 1, 1): 'branches.1',
              (128, 1024, 1, 1): 'branches.2', (256, 256, 3, 3): 'blend'}
    renamed: dict[str, Tensor] = {}
    place, index, modules = None, {}, {}
    for key, value in state.items():
        module, entry = key.rsplit('.', 1)
        if value.ndim == 4:
            if tuple(value.shape) not in places:
                raise ValueError(f'{key} of shape {list(value.shape)} has no place in the fusion')
            place = places[tuple(value.shape)]
            renamed[f'neck.{place}.0.{entry}'] = value
            index[place] = 0
        elif place is None:
            raise ValueError(f'{key} comes before any convolution')
        else:
            if module not in modules:
                # convolution 0, norm 1, ReLU 2, norm 3
                modules[module] = f'neck.{place}.{1 + 2 * index[place]}'
                index[place] += 1
            renamed[f'{modules[module]}.{entry}'] = value
    return renamed


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names.

    Raises:
        ValueError: an entry is not one of CRM's.
    """
    renamed, fusion = {}, {}
    for key, value in state.items():
        key = key.removeprefix('module.')
        if key.startswith('feats.'):
            if not key.startswith('feats.layer4.'):
                renamed[f'backbone.{key.removeprefix("feats.")}'] = value
        elif key.startswith('aspp'):
            fusion[key] = value
        elif found := re.match(r'imnet\.layers\.([02468])\.(weight|bias)$', key):
            renamed[f'head.layers.{int(found[1]) // 2}.{found[2]}'] = value
        else:
            raise ValueError(f"{key} is not one of CRM's entries (feats.*, aspp*, imnet.layers.*)")
    return renamed | rename_fusion(fusion)


def main() -> None:
    """Read, rename, compare with the config's model, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help="the authors' file")
    parser.add_argument('config', help=f'a CRM config: {CONFIG}')
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

    import mmsparse  # noqa: F401  checkpoints are read safely

    state = torch.load(args.checkpoint, map_location='cpu')
    try:
        found = convert(state.get('state_dict', state))
    except ValueError as error:
        stop(f'{args.checkpoint}: {error}')
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        wanted = MODELS.build(cfg.model).state_dict()
    for title, keys in (('lacks', wanted.keys() - found.keys()),
                        ('has too much:', found.keys() - wanted.keys()),
                        ('has other shapes in', {k for k in wanted.keys() & found.keys()
                                                 if wanted[k].shape != found[k].shape})):
        keys = sorted(k for k in keys if not k.endswith('num_batches_tracked'))
        if keys:
            stop(f'{args.checkpoint} {title} {len(keys)} entries, the first is {keys[0]}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=found, meta={}), args.out)
    print(f'written to {args.out}: {len(found)} entries')


if __name__ == '__main__':
    main()
