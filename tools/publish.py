"""Add weights to the zoo: a plain state dict, its floating-point entries in half precision.

The checkpoint has to have the entries of the config's model, all and no others. Prints what zoo.yml
needs; a name that it has already gets its new hash there.
"""

from __future__ import annotations

import argparse
import hashlib
import re

from command_line import check_checkpoint, check_config, stop


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config file below configs/')
    parser.add_argument('checkpoint')
    parser.add_argument('name', help='of mmsparse://NAME')
    parser.add_argument('--force', action='store_true', help='write over weights that exist')
    return parser.parse_args()


def main() -> None:
    """Read, compare, round, write."""
    args = parse_args()
    check_config(args.config)
    check_checkpoint(args.checkpoint)
    if not re.fullmatch(r'[\w.-]+', args.name):
        stop(f'{args.name!r} must be of letters, digits, _ . and -')

    import torch
    from mmengine.registry import MODELS, init_default_scope

    from mmsparse import zoo
    from mmsparse.checkpoint import load_checkpoint, state_dict_of
    from mmsparse.engine.config import read_config

    out = zoo.FOLDER / f'{args.name}.pth'
    if out.exists() and not args.force:
        stop(f'{out} exists; --force writes over it')
    cfg = read_config(args.config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    loaded = load_checkpoint(args.checkpoint)
    try:
        model.load_state_dict(state_dict_of(loaded, args.checkpoint), strict=True)
    except RuntimeError as error:
        stop(f'{args.checkpoint} does not fit {args.config}: {error}')
    weights = {key: value.half() if value.is_floating_point() else value
               for key, value in model.state_dict().items()}
    if bad := [key for key, value in weights.items() if not value.isfinite().all()]:
        stop(f'{bad[0]} is not finite in half precision')
    torch.save(weights, out)
    content = out.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    print(f'written to {out}: {len(weights)} entries, {len(content):,} bytes')
    entry = zoo.entries().get(args.name)
    if entry is None:
        print(f'zoo.yml needs:\n{args.name}:\n  sha256: {digest}')
        return
    index = zoo.FOLDER / 'zoo.yml'
    index.write_text(index.read_text().replace(entry['sha256'], digest))
    print(f'{index} has its hash')


if __name__ == '__main__':
    main()
