"""What the detector knows about an object, added to its RoI feature.

Source: EffSeg (2023), sec. 4.1. Letters: ``R`` RoIs, ``Q`` width of a query.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def norm_linear(channels: int) -> nn.Sequential:
    """Layer norm, ReLU, linear layer."""
    return nn.Sequential(nn.LayerNorm(channels), nn.ReLU(), nn.Linear(channels, channels))


class QueryFusion(nn.Module):
    """Add a blend of RoI feature and query to the RoI feature.

    With the defaults 65,792 + 197,120 parameters.

    Args:
        query_channels: ``Q``.
        channels: of the RoI feature.
    """

    def __init__(self, query_channels: int = 256, channels: int = 256) -> None:
        super().__init__()
        self.project = nn.Linear(query_channels, channels)
        self.blend = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1))

    def forward(self, feats: Tensor, queries: Tensor) -> Tensor:
        """Fused features.

        Args:
            feats: ``[R, C, h, w]``.
            queries: ``[R, Q]``.
        """
        queries = F.relu(self.project(queries))[:, :, None, None].expand_as(feats)
        return feats + self.blend(torch.cat([queries, feats], 1))
