"""Multiply-accumulates of a sparse U-Net, counted by running it without features."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn
from typing_extensions import override

from ..topology import Topology
from .active_map import ActiveMap

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Total:
    """A number that several maps add to."""

    macs: int = 0


@dataclass(frozen=True)
class MacCount(ActiveMap):
    """Counts what sparse convolutions on these pixels cost, exactly.

    Every 3x3 convolution costs its pairs of active pixels x channels in x channels out, a 1x1
    convolution its pixels x channels in x channels out; norms and sums are not counted. Winograd
    tiles need fewer, dense convolutions more.

    Attributes:
        topology: the pixels.
        total: what was counted so far, shared by all maps that follow from one.
    """

    topology: Topology
    total: Total = field(default_factory=Total)

    def _count(self, pairs: int, weight: Tensor) -> Self:
        self.total.macs += pairs * weight.shape[0] * weight.shape[-1]
        return self

    @override
    def subm_conv(self, weight: Tensor) -> Self:
        return self._count(self.topology.pairs, weight)

    @override
    def down_conv(self, weight: Tensor, padding: int) -> MacCount | None:
        coarse = self.topology.coarse(padding)
        if not len(coarse):
            return None
        self._count(self.topology.strided_pairs(padding), weight)
        return MacCount(coarse, self.total)

    @override
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        return self._count(self.topology.strided_pairs(padding), weight)

    @override
    def linear(self, weight: Tensor) -> Self:
        return self._count(len(self.topology), weight)

    @override
    def add(self, other: Self) -> Self:
        return self

    @override
    def concat(self, other: Self) -> Self:
        return self

    @override
    def norm_relu(self, norm: nn.BatchNorm1d) -> Self:
        return self

    @override
    def bias_relu(self, bias: Tensor) -> Self:
        return self

    @override
    def rows(self) -> Tensor:
        return self.topology.indices[:, :0].float()  # no channels

    @override
    def replace_rows(self, rows: Tensor) -> Self:
        return self
