"""What a machine can do and how much memory a function takes on it."""
from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from mmsparse.compat import spconv_wheel
from mmsparse.memory import trim_heap


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were taken on."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next((x.split(':', 1)[1].strip() for x in lines if x.startswith('model name')),
                    platform.processor())
        name = f'{name}, {torch.get_num_threads()} threads'
    return dict(device=name, torch=torch.__version__, engine=engine_name(device))


def engine_name(device: torch.device) -> str:
    """Which sparse engine computes on this device."""
    wheel = spconv_wheel()
    algorithm = 'implicit GEMM' if device.type == 'cuda' else 'gathered GEMM on the CPU'
    return f'{wheel.distribution} {wheel.version}, {algorithm}'


def dense_conv_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-accumulates per second of a dense convolution, in 10^9.

    3 x 3, 256 channels, 128 x 256 pixels, channels last: best of ten, what the machine can do.
    """
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=dtype)
    convert_conv2d_weight_memory_format(conv, torch.channels_last)
    x = torch.randn(1, 256, 128, 256, device=device, dtype=dtype).contiguous(
        memory_format=torch.channels_last)
    seconds = []
    with torch.no_grad():
        for _ in range(11):
            synchronize(device)
            start = time.perf_counter()
            conv(x)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    return 9 * 256**2 * 128 * 256 / min(seconds[1:]) / 1e9


def peak_memory(function: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a function holds at most above what is held before it.

    On CUDA by torch's allocator; on the CPU resident memory as Linux counts it, ``-1`` where the
    kernel does not let the count be reset.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    trim_heap()  # or freed blocks kept for reuse would hide the peak
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return -1
    before = _status('VmRSS')
    function()
    return _status('VmHWM') - before


def _status(key: str) -> int:
    """A figure of ``/proc/self/status`` in bytes."""
    line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024
