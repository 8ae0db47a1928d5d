"""Packages whose names import their module only when they are used (PEP 562).

What a package gives stands in its ``__init__.pyi``, as imports: for type checkers and editors, and
for :func:`attach`.
"""
from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]],
                                             list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    ``from package import Name``, ``package.Name`` and ``from package import *`` work as if the
    package made the imports of its ``__init__.pyi`` itself. No name may be that of a module: Python
    would give the one or the other, whichever is imported first.

    Args:
        package: its ``__name__``.
        file: its ``__file__``.
    """
    home = {}
    for line in ast.parse(Path(file).with_suffix('.pyi').read_text(encoding='utf-8')).body:
        if isinstance(line, ast.ImportFrom):
            module = f'{package}.{line.module}'
            names = [alias.name for alias in line.names]
            home.update(dict.fromkeys(
                import_module(module).__all__ if names == ['*'] else names, module))

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
