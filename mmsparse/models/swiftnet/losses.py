"""The boundary-aware loss of SwiftNet's 2020 release.

Source: Orsic and Segvic, "Efficient semantic segmentation with pyramidal fusion", Pattern
Recognition 2020. Letters: ``B`` images, ``K`` classes, ``H, W`` size.
"""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.registry import MODELS


@MODELS.register_module()
class BoundaryAwareLoss(nn.Module):
    r"""Cross entropy that weighs pixels near a boundary and pixels that are not right yet.

    .. math:: L = -\frac{1}{N} \sum_i \alpha_i \, e^{\gamma (1 - p_i)} \ln p_i

    with :math:`p_i` the probability of the true class, without gradient in the exponent,
    :math:`\alpha_i` the pixel's weight by its distance to a boundary
    (``mmsparse.LabelBoundaryWeight``) and ``N`` the number of pixels with a positive weight.

    Args:
        gamma: 0 is the plain weighed cross entropy.
        loss_weight: factor of the whole.
        loss_name: in the log.
    """

    def __init__(self, gamma: float = 0.5, loss_weight: float = 1.0,
                 loss_name: str = 'loss_boundary') -> None:
        super().__init__()
        self.gamma = gamma
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    @property
    def loss_name(self) -> str:
        """In the log."""
        return self._loss_name

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None,
                ignore_index: int = 255, **_: Any) -> Tensor:
        """A scalar, float64 for such logits, else float32.

        Zero with gradients of zero if no pixel counts.

        Args:
            logits: ``[B, K, H, W]``.
            labels: int64 ``[B, H, W]``.
            weight: float ``[B, H, W]``; ``None`` is 1.
            ignore_index: label that does not count.
        """
        if logits.dtype != torch.float64:
            logits = logits.float()  # autocast: half floats would lose the sum
        cross_entropy = F.cross_entropy(
            logits, labels, ignore_index=ignore_index, reduction='none')
        alpha = (labels != ignore_index).to(logits.dtype)
        if weight is not None:
            alpha = alpha * weight
        with torch.no_grad():
            alpha = alpha * torch.exp(self.gamma * (1 - torch.exp(-cross_entropy)))
            count = (alpha > 0).sum().clamp(min=1)
        return self.loss_weight * (alpha * cross_entropy).sum() / count
