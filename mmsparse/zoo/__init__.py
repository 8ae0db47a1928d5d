"""Weights that come with the package, found by name, without a network.

``mmsparse://NAME`` stands for a config and its weights. ``zoo.yml``, beside this file, says of
every name which config that is, whose the weights and their data are, how they were made and what
they reach. ``NAME.pth``, written by ``tools/publish.py``, is a plain state dict, its floating-point
entries in half precision; ``NAME.LICENSE`` is the notice that it comes under.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeGuard

SCHEME = 'mmsparse://'
FOLDER = Path(__file__).parent


def is_address(name: Any) -> TypeGuard[str]:
    """Whether this is ``mmsparse://…``."""
    return isinstance(name, str) and name.startswith(SCHEME)


def checkpoint_of(config: Any, checkpoint: Any) -> Any:
    """The checkpoint; where none is given, that of a config by name, which has the same address."""
    return config if checkpoint is None and is_address(config) else checkpoint


def entries() -> dict[str, dict[str, Any]]:
    """What ``zoo.yml`` says of every name."""
    import yaml  # late: the MM stack brings it, and doctor says so where that is missing
    return yaml.safe_load((FOLDER / 'zoo.yml').read_text(encoding='utf-8'))


def find(address: str) -> dict[str, Any]:
    """What ``zoo.yml`` says of ``mmsparse://NAME``.

    Raises:
        FileNotFoundError: there is no such name; the message lists those that there are.
    """
    known = entries()
    name = address.removeprefix(SCHEME)
    if name not in known:
        raise FileNotFoundError(
            f'{address}: the zoo has no {name!r}, only {", ".join(sorted(known))}')
    return known[name]


def config_file(address: str) -> Path:
    """The config of ``mmsparse://NAME``, of this very package; raises as :func:`find`."""
    package = FOLDER.parent
    inside = package / '.mim'  # of a wheel; a checkout has its configs beside the package
    return (inside if inside.is_dir() else package.parent) / 'configs' / find(address)['config']


def read_weights(address: str) -> bytes:
    """The checkpoint file of ``mmsparse://NAME``.

    Raises:
        FileNotFoundError: there is no such name.
        RuntimeError: the file is not the one that was published.
    """
    wanted = find(address)['sha256']
    path = FOLDER / f'{address.removeprefix(SCHEME)}.pth'
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise RuntimeError(f'{path} is damaged: its SHA-256 is {found}, must be {wanted}')
    return content
