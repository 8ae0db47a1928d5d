"""Fusing a detector's query of an object into the object's RoI feature.

Source: EffSeg (2023), sec. 4.1. Letters: ``R`` RoIs, ``C`` channels, ``Q`` width of a query,
``h, w`` size of a RoI feature.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32, and leave other floats as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def norm_linear(channels: int) -> nn.Sequential:
    """Layer norm, ReLU and a linear layer, all of the same width."""
    return nn.Sequential(nn.LayerNorm(channels), nn.ReLU(), nn.Linear(channels, channels))


class QueryFusion(nn.Module):
    """Adds to the RoI feature what two 1x1 convolutions make of it and the query together.

    The query is projected to ``C`` channels and repeated at every place of the RoI feature. With
    the defaults the projection has 65,792 parameters, the convolutions 197,120.

    Args:
        query_channels: ``Q``.
        channels: ``C``.
    """

    def __init__(self, query_channels: int = 256, channels: int = 256) -> None:
        super().__init__()
        self.project = nn.Linear(query_channels, channels)
        self.blend = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1))

    def forward(self, feats: Tensor, queries: Tensor) -> Tensor:
        """Fuse.

        Args:
            feats: ``[R, C, h, w]``.
            queries: ``[R, Q]``.

        Returns:
            ``[R, C, h, w]``.
        """
        queries = F.relu(self.project(queries))[:, :, None, None].expand_as(feats)
        return feats + self.blend(torch.cat([queries, feats], 1))
