"""Dice loss on single pixels. Letters: ``N`` pixels, ``K`` classes."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.registry import MODELS


@MODELS.register_module()
class PointDiceLoss(nn.Module):
    r"""One minus the Dice coefficient of every class over all pixels, averaged over classes.

    .. math:: 1 - \frac1K \sum_k \frac{2 \sum_n p_{nk} t_{nk}}
                                      {\sum_n p_{nk} + \sum_n t_{nk} + \varepsilon}

    with ``p`` the softmax and ``t`` the one-hot label. As in the authors' released code (which has
    it beside the paper's cross entropy, switched off), a class without a label counts as a loss of
    one, also if it is not predicted: a constant, so that such a class gets no gradient of its own.
    With ``eps`` in the numerator too it would get one of up to ``1 / (K eps)``, where hardly
    anything of it is predicted.

    mmseg's ``DiceLoss`` sums over the pixels of an image ``[B, K, H, W]``; given rows it would sum
    over the classes of one pixel.

    Args:
        loss_weight: factor of the loss.
        eps: keeps a class that neither occurs nor is predicted from dividing by zero.
        loss_name: key of the loss in the log.
    """

    def __init__(self, *, loss_weight: float = 1.0, eps: float = 1e-5,
                 loss_name: str = 'loss_dice') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.eps = eps
        self.loss_name = loss_name

    def forward(self, logits: Tensor, labels: Tensor, *, ignore_index: int = 255,
                avg_factor: Tensor | None = None) -> Tensor:
        """Scalar loss; without any labeled pixel one, and its gradient zero.

        Args:
            logits: ``[N, K]``.
            labels: int64 ``[N]``; ``ignore_index`` is left out.
            avg_factor: not used, a ratio of sums needs none.
        """
        labeled = labels != ignore_index
        p = logits.float().softmax(1) * labeled[:, None]
        target = F.one_hot(labels.where(labeled, 0), logits.shape[1]) * labeled[:, None]
        shared, total = (p * target).sum(0), p.sum(0) + target.sum(0)
        return self.loss_weight * (1 - 2 * shared / (total + self.eps)).mean()
