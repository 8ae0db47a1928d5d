"""Sizes of maps."""
from __future__ import annotations

import numpy as np
from torch import Tensor


def size_of(x: Tensor | np.ndarray) -> tuple[int, int]:
    """``(H, W)`` of ``[..., H, W]``."""
    height, width = x.shape[-2:]
    return height, width


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """``(H, W)`` times ``scale``, rounded, 1 at least."""
    height, width = (max(round(n * scale), 1) for n in size)
    return height, width
