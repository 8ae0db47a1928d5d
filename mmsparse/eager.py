"""Functions that ``torch.compile`` leaves to Python."""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec('P')
R = TypeVar('R')


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """As ``torch.compiler.disable``, which imports the compiler for a second; this does not.

    Under ``torch.compile`` the function is a break between two graphs, and nothing in it is traced.
    """
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return HERE.run(function, *args, **kwargs)

    return wrapper


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's result."""
    return function(*args, **kwargs)


def __getattr__(name: str) -> Any:
    """``run`` (PEP 562): :func:`call`, which the compiler, once it is imported, leaves alone.

    The compiler does not trace this function, but asks the module for ``run``: it finds what
    ``torch.compiler.disable`` made, however early the functions above were defined.
    """
    if name != 'run':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if 'torch._dynamo' not in sys.modules:
        return call
    HERE.run = torch.compiler.disable(call)  # found without this function from now on
    return HERE.run


HERE: Any = sys.modules[__name__]
