"""Sizes of maps."""
from __future__ import annotations

import numpy as np
from torch import Tensor


def size_of(x: Tensor | np.ndarray) -> tuple[int, int]:
    """``(H, W)`` of ``[..., H, W]``."""
    height, width = x.shape[-2:]
    return height, width
