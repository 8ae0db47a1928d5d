"""What a backend can do: the operations of a sparse U-Net on features of active pixels."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing_extensions import Self


class ActiveMap(ABC):
    """Features ``[N, C]`` of the ``N`` active pixels of one level, in the memory of a backend.

    Maps are values: every operation gives a new one. A convolution has no bias and a weight ``[D,
    3, 3, C]``, the layout of spconv (seen as ``[D, C, 3, 3]`` it is a channels-last convolution
    weight). Letters: ``C, D`` channels in and out.
    """

    @abstractmethod
    def subm_conv(self, weight: Tensor) -> Self:
        """3x3 convolution whose output lives on the same pixels (submanifold)."""

    @abstractmethod
    def down_conv(self, weight: Tensor, padding: int) -> ActiveMap | None:
        """3x3 convolution of stride 2 onto the cells that read any pixel; ``None``: there is none.

        Args:
            weight: ``[D, 3, 3, C]``.
            padding: 0 or 1.
        """

    @abstractmethod
    def up_conv(self, coarse: Self, weight: Tensor, padding: int) -> Self:
        """Inverse of :meth:`down_conv`: from ``coarse`` onto the pixels of this map.

        Args:
            coarse: what :meth:`down_conv` of a map with these pixels gave, or followed from that.
            weight: ``[D, 3, 3, C]``; tap ``(r, c)`` joins cell ``(i, j)`` to pixel ``(2 i - padding
                + r, 2 j - padding + c)``, as in :meth:`down_conv`.
            padding: that of :meth:`down_conv`.
        """

    @abstractmethod
    def linear(self, weight: Tensor) -> Self:
        """1x1 convolution, weight ``[D, C]``."""

    @abstractmethod
    def add(self, other: Self) -> Self:
        """Sum with a map over the same pixels."""

    @abstractmethod
    def concat(self, other: Self) -> Self:
        """Own channels, then those of a map over the same pixels."""

    @abstractmethod
    def rows(self) -> Tensor:
        """Features ``[N, C]``; in raster order on the level that the map was made for."""

    @abstractmethod
    def replace_rows(self, rows: Tensor) -> Self:
        """The same pixels with other features ``[N, C']``, in the order of :meth:`rows`."""

    def norm_relu(self, norm: nn.BatchNorm1d) -> Self:
        """Batch norm over the active pixels of the whole batch, then ReLU.

        In training one row has no variance: such a call uses the running statistics and leaves
        them as they are.
        """
        rows = self.rows()
        if norm.training and len(rows) < 2:
            rows = F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias,
                                False, 0.0, norm.eps)
        else:
            rows = nn.BatchNorm1d.forward(norm, rows)
        return self.replace_rows(rows.relu_())

    def bias_relu(self, bias: Tensor) -> Self:
        """``[C]`` added, then ReLU: what is left of a norm that its convolution took up."""
        return self.replace_rows((self.rows() + bias).relu_())


def scale_and_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """The two ``[C]`` that stand for a trained norm."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None, 'a norm without running statistics'
    scale = norm.weight / (variance + norm.eps).sqrt()
    return scale, norm.bias - mean * scale
