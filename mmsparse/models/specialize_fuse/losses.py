"""Losses over the cells that count. Letters: ``B`` images, ``K`` classes, ``h, w`` cells.

mmseg's own do not fit: its sigmoid loss raises on a target that is ignored everywhere, its default
average counts ignored cells, so that a level fades as re-labelling leaves it fewer, and its other
average waits for the device. All of these sums stay connected to the graph: a level without any
target gets gradients of zero.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .targets import IGNORED, UNITY, LevelTargets


@MODELS.register_module()
class PyramidLoss(nn.Module):
    """Cross entropy of the classes of every level, binary cross entropy of unity.

    Args:
        levels: ``L``; from the head.
        has_unity: whether the head predicts unity; from the head.
        sem_weights: of the class losses, per level, coarse to fine; 1 by default. Positive; without
            unity 0 means that the level has no classifier, which the finest must have.
        unity_weights: of the unity losses, per level but the finest; 1 by default.
        avg_non_ignore: as in mmseg's losses: the mean is over the cells that count, else over all.

    Raises:
        ValueError: weights are too few, too many or out of range.
    """

    def __init__(self, *, levels: int, has_unity: bool,
                 sem_weights: Sequence[float] | None = None,
                 unity_weights: Sequence[float] | None = None,
                 avg_non_ignore: bool = True) -> None:
        super().__init__()
        self.sem_weights = (1.0,) * levels if sem_weights is None else tuple(sem_weights)
        self.unity_weights = (1.0,) * (levels - 1) if unity_weights is None else tuple(
            unity_weights)
        self.avg_non_ignore = avg_non_ignore
        for key, count, zero in (('sem_weights', levels, not has_unity),
                                 ('unity_weights', levels - 1, False)):
            weights = getattr(self, key)
            if len(weights) != count or min(weights, default=1) < 0 or (
                    weights[-1:] == (0,) if zero else 0 in weights):
                raise ValueError(
                    f'{type(self).__name__}.{key} must be {count} positive numbers, coarse to fine'
                    f'{", zero for levels without a classifier" if zero else ""}, got {weights}')

    def forward(self, sem: Sequence[Tensor], unity: Sequence[Tensor], targets: LevelTargets,
                strides: Sequence[int], ignore_index: int) -> dict[str, Tensor]:
        """Losses ``loss_sem_s32`` ..., ``loss_unity_s32`` ..., float32 scalars.

        Args:
            sem: class logits of the levels that have them, of the targets' sizes.
            unity: unity logits ``[B, 1, h, w]`` of the levels but the finest; or none.
            targets: of :class:`~.targets.PyramidTargets`.
            strides: of the levels, coarse to fine.
            ignore_index: label that counts nowhere.
        """
        losses = {}
        classified = [level for level in zip(strides, self.sem_weights, targets.classes,
                                             strict=True) if level[1]]
        for (stride, weight, target), logits in zip(classified, sem, strict=True):
            losses[f'loss_sem_s{stride}'] = weight * class_loss(
                logits, target, ignore_index, self.avg_non_ignore)
        for stride, weight, target, logits in zip(strides, self.unity_weights, targets.unity, unity,
                                                  strict=False):
            losses[f'loss_unity_s{stride}'] = weight * unity_loss(
                logits, target, self.avg_non_ignore)
        return losses


def _mean(total: Tensor, valid: Tensor, avg_non_ignore: bool) -> Tensor:
    return total / (valid.sum().clamp(min=1) if avg_non_ignore else valid.numel())


def class_loss(logits: Tensor, target: Tensor, ignore_index: int, avg_non_ignore: bool = True
               ) -> Tensor:
    """Cross entropy, a float32 scalar.

    Args:
        logits: ``[B, K, h, w]``.
        target: int64 ``[B, h, w]``.
        ignore_index: of cells that do not count.
        avg_non_ignore: the mean over cells that count, zero if there is none; else their sum over
            the number of all cells.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=ignore_index, reduction='sum')
    return _mean(total, target != ignore_index, avg_non_ignore)


def unity_loss(logits: Tensor, target: Tensor, avg_non_ignore: bool = True) -> Tensor:
    """Binary cross entropy, a float32 scalar; ``IGNORED`` cells do not count.

    Args:
        logits: ``[B, 1, h, w]``.
        target: int64 ``[B, h, w]``.
        avg_non_ignore: as in :func:`class_loss`.
    """
    valid = target != IGNORED
    total = F.binary_cross_entropy_with_logits(
        logits.float().squeeze(1), (target == UNITY).float(), weight=valid.float(), reduction='sum')
    return _mean(total, valid, avg_non_ignore)
