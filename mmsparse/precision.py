"""Bfloat16 where the machine has instructions for it."""
from __future__ import annotations

import functools
import warnings
from pathlib import Path


@functools.cache
def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16; taken for granted off Linux."""
    facts = Path('/proc/cpuinfo')
    return not facts.exists() or bool(
        set(facts.read_text().split()) & {'amx_bf16', 'avx512_bf16', 'bf16'})


def takes_bfloat16(device: str) -> bool:
    """Whether to compute in bfloat16, which was asked for, on a type of device.

    A CPU without instructions for it would take ten times as long as in float32 and more (one with
    AVX2 13 times for the convolution of ``machine.dense_conv_rate``). It computes in float32, and a
    warning says so, once.
    """
    if device != 'cpu' or computes_bfloat16():
        return True
    _warn()
    return False


@functools.cache
def _warn() -> None:
    warnings.warn(
        'bfloat16 was asked for, but this CPU has no instructions for it and would take ten times '
        'as long as in float32 and more: it computes in float32', stacklevel=3)
