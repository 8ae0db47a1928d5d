"""What sparse convolutions cost: pairs of active pixels that a kernel joins.

A sparse 3x3 convolution multiplies once per pair (input pixel, output pixel) and per channel in and
out; that product is its exact number of multiply-accumulates. Letters: ``B`` images, ``H, W`` size.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ONES = torch.ones(1, 1, 3, 3)


def submanifold_pairs(mask: Tensor) -> int:
    """Pairs of a 3x3 convolution from the active pixels onto the same ones.

    Args:
        mask: bool ``[B, H, W]``.
    """
    m = mask[:, None].float()
    return int((F.conv2d(m, _ONES.to(m), padding=1) * m).double().sum())


def strided_pairs(mask: Tensor, padding: int) -> int:
    """Pairs of a 3x3 convolution of stride 2, and of its inverse.

    Args:
        mask: bool ``[B, H, W]``, the fine active pixels.
        padding: 0 or 1, of the convolution.
    """
    m = mask[:, None].float()
    return int(F.conv2d(m, _ONES.to(m), stride=2, padding=padding).double().sum())


def coarser(mask: Tensor, padding: int) -> Tensor:
    """Active cells after a 3x3 convolution of stride 2: those that read any active pixel.

    Args:
        mask: bool ``[B, H, W]``.
        padding: 0 or 1, of the convolution.
    """
    return F.max_pool2d(mask[:, None].float(), 3, stride=2, padding=padding)[:, 0] > 0
