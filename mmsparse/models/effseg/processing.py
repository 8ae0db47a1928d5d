"""Processing modules of EffSeg: what a stage does with its active cells.

Source: EffSeg (2023), sec. 3.3 and Table 5. Each takes ``C`` channels and gives as many, for active
cells alone; passive ones are read where a convolution meets them. Letters: ``N`` active cells.
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import SPSConv2d, SPSDeformConv2d, SPSMap, neighbors, sum_of_convolutions


def feed_forward(channels: int) -> nn.Sequential:
    """Norm and two layers with four times the width between."""
    return nn.Sequential(
        nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.ReLU(inplace=True),
        nn.Linear(4 * channels, channels))


@MODELS.register_module()
class SPSMLP(nn.Module):
    """Each cell by itself: the ablation without neighbors. 9 C^2 + 8 C parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, channels)
        self.ffn = feed_forward(channels)

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        return self.ffn(self.first(x.active))


@MODELS.register_module()
class SPSConvBlock(nn.Module):
    """A 3x3 convolution before the feed-forward layers. 17 C^2 + 8 C parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = self.convolution(channels)
        self.ffn = feed_forward(channels)

    def convolution(self, channels: int) -> nn.Module:
        """What reads the neighbors."""
        return SPSConv2d(channels, channels)

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        return self.ffn(self.first(x))


@MODELS.register_module()
class SPSDeformConvBlock(SPSConvBlock):
    """As :class:`SPSConvBlock` with a deformable convolution: 18 C + 18 parameters more."""

    def convolution(self, channels: int) -> nn.Module:
        """What reads the neighbors."""
        return SPSDeformConv2d(channels, channels)


@MODELS.register_module()
class SemanticFusionModule(nn.Module):
    """Three dilated 3x3 convolutions side by side, summed after their ReLUs (EffSeg's default).

    30 C^2 + 6 C parameters. Between linear layers with ReLU: one before, of active cells alone
    unless ``project_passive``, and two after.

    Args:
        channels: ``C``.
        dilations: of the convolutions.
        project_passive: apply the first layer to passive rows as well. The authors' do not, so
            the convolutions read two kinds of features.
    """

    def __init__(self, channels: int, *, dilations: Sequence[int] = (1, 3, 5),
                 project_passive: bool = False) -> None:
        super().__init__()
        self.project_passive = project_passive
        self.first = nn.Linear(channels, channels)
        self.convs = nn.ModuleList(
            SPSConv2d(channels, channels, dilation=d) for d in dilations)
        self.last = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True),
            nn.Linear(channels, channels), nn.ReLU(inplace=True))

    def forward(self, x: SPSMap) -> Tensor:
        """New features of the active cells, ``[N, C]``."""
        return self.last(sum_of_convolutions(
            self._bank(x), [neighbors(x, conv.offsets) for conv in self.convs],
            [conv.weight.flatten(1) for conv in self.convs], [conv.bias for conv in self.convs],
            rectify=True))

    def _bank(self, x: SPSMap) -> Tensor:
        """What the convolutions read; without gradients nothing else of it is kept."""
        x = x._replace(active=self.first(x.active).relu_())
        if self.project_passive:
            x = x._replace(passive=self.first(x.passive).relu_())
        return x.bank
