"""Packages whose names import their module only when they are used (PEP 562)."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, table: Mapping[str, Iterable[str]]
           ) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    ``from package import Name``, ``package.Name`` and ``from package import *`` work as if the
    package imported them itself.

    Args:
        package: its ``__name__``.
        table: for each of its modules the names that the package gives. No name may be that of a
            module: Python would give the one or the other, whichever is imported first.
    """
    home = {name: f'{package}.{module}' for module, names in table.items() for name in names}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
