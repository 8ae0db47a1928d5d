"""Losses over the cells that count. Letters: ``B`` images, ``K`` classes, ``h, w`` cells.

mmseg's own do not fit: its sigmoid loss raises on a target that is ignored everywhere, its default
average counts ignored cells, so that a level fades as re-labelling leaves it fewer, and its other
average waits for the device. All of these sums stay connected to the graph: a level without any
target gets gradients of zero.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .targets import IGNORED, UNITY

NORMALIZERS = ('valid', 'all')


def _mean(total: Tensor, valid: Tensor, normalize: str) -> Tensor:
    return total / (valid.sum().clamp(min=1) if normalize == 'valid' else valid.numel())


def class_loss(logits: Tensor, target: Tensor, ignore_index: int, normalize: str = 'valid'
               ) -> Tensor:
    """Cross entropy, a float32 scalar.

    Args:
        logits: ``[B, K, h, w]``.
        target: int64 ``[B, h, w]``.
        ignore_index: of cells that do not count.
        normalize: ``'valid'``, the mean over cells that count, zero if there is none; ``'all'``,
            their sum over the number of all cells.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=ignore_index, reduction='sum')
    return _mean(total, target != ignore_index, normalize)


def unity_loss(logits: Tensor, target: Tensor, normalize: str = 'valid') -> Tensor:
    """Binary cross entropy, a float32 scalar; ``IGNORED`` cells do not count.

    Args:
        logits: ``[B, 1, h, w]``.
        target: int64 ``[B, h, w]``.
        normalize: as in :func:`class_loss`.
    """
    valid = target != IGNORED
    total = F.binary_cross_entropy_with_logits(
        logits.float().squeeze(1), (target == UNITY).float(), weight=valid.float(), reduction='sum')
    return _mean(total, valid, normalize)
