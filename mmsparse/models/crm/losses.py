"""A loss on the edges of masks. Source: CRM (CVPR 2022), CascadePSP (CVPR 2020)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.registry import MODELS


def edge_strength(masks: Tensor) -> Tensor:
    """Length of the Sobel gradient of masks smoothed by a 3x3 mean.

    Args:
        masks: ``[B, 1, H, W]``, from 0 to 1.

    Returns:
        ``[B, 1, H, W]``: 0.01 where the mask is flat, as 1e-4 stands under the root.
    """
    smooth = F.avg_pool2d(masks, 3, stride=1, padding=1)
    x = masks.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
    gradient = F.conv2d(smooth, torch.stack([x, x.T])[:, None], padding=1)  # [B, 2, H, W]
    # 1e-4: the root has no gradient at 0
    return gradient.square().sum(1, keepdim=True).add(1e-4).sqrt()


@MODELS.register_module()
class SobelLoss(nn.Module):
    """Mean absolute difference between the edges of two masks.

    Args:
        loss_weight: factor.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A scalar, float32.

        Args:
            prediction, target: ``[B, 1, H, W]`` in ``0 .. 1``.
        """
        return self.loss_weight * F.l1_loss(
            edge_strength(prediction.float()), edge_strength(target.float()))
