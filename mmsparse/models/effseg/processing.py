"""EffSeg's processing modules, one of which ends every sparse stage of the mask head.

Each computes new features, ``C`` channels from ``C``, for the active cells alone. Modules with
convolutions read the neighbors of these cells, active or passive. Source: EffSeg (2023), sec. 3.3
and Table 5. Letters: ``N`` active cells, ``C`` channels.
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import SPSConv2d, SPSDeformConv2d, SPSMap, neighbors, sum_of_convolutions
from mmsparse.sparse.sps import square


def feed_forward(channels: int) -> nn.Sequential:
    """Layer norm, and two linear layers with ``4 C`` channels and a ReLU between them."""
    return nn.Sequential(
        nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.ReLU(inplace=True),
        nn.Linear(4 * channels, channels))


@MODELS.register_module()
class SPSMLP(nn.Module):
    """Computes each cell by itself: the ablation that reads no neighbors.

    9 C^2 + 8 C parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, channels)
        self.ffn = feed_forward(channels)

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        return self.ffn(self.first(x.active))


@MODELS.register_module()
class SPSConvBlock(nn.Module):
    """A 3x3 convolution followed by feed-forward layers. 17 C^2 + 8 C parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = self.convolution(channels)
        self.ffn = feed_forward(channels)

    def convolution(self, channels: int) -> nn.Module:
        """Build the layer that reads the neighbors."""
        return SPSConv2d(channels, channels)

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        return self.ffn(self.first(x))


@MODELS.register_module()
class SPSDeformConvBlock(SPSConvBlock):
    """:class:`SPSConvBlock` with a deformable convolution, which has 18 C + 18 parameters more."""

    def convolution(self, channels: int) -> nn.Module:
        """Build the layer that reads the neighbors."""
        return SPSDeformConv2d(channels, channels)


@MODELS.register_module()
class SemanticFusionModule(nn.Module):
    """EffSeg's default: the sum of three dilated 3x3 convolutions, each followed by a ReLU.

    Before it is one linear layer with ReLU, after it are two. 30 C^2 + 6 C parameters. The dense
    module that it follows is in :class:`.refine_mask.RefineMaskStage`.

    Args:
        channels: ``C``.
        dilations: of the convolutions.
        project_passive: apply the first linear layer to passive cells as well. The authors' code
            does not: there, convolutions read active cells after that layer, passive ones before.
    """

    def __init__(self, channels: int, *, dilations: Sequence[int] = (1, 3, 5),
                 project_passive: bool = False) -> None:
        super().__init__()
        self.project_passive = project_passive
        self.offsets = [square(3, d) for d in dilations]
        self.first = nn.Linear(channels, channels)
        self.convs = nn.ModuleList(
            SPSConv2d(channels, channels, dilation=d) for d in dilations)
        self.last = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True),
            nn.Linear(channels, channels), nn.ReLU(inplace=True))

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        weights, biases = zip(*(conv.parameters() for conv in self.convs), strict=True)
        return self.last(sum_of_convolutions(
            self._bank(x), [neighbors(x, offsets) for offsets in self.offsets],
            [weight.flatten(1) for weight in weights], biases, rectify=True))

    def _bank(self, x: SPSMap) -> Tensor:
        """The rows that the convolutions read: active, passive, and one of zeros beyond the grid.

        In a method of its own, so that without gradients the map it is made of is freed before the
        convolutions run.
        """
        x = x._replace(active=self.first(x.active).relu_())
        if self.project_passive:
            x = x._replace(passive=self.first(x.passive).relu_())
        return x.bank
