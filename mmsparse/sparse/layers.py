"""3x3 layers of a sparse U-Net. Parameters belong to the layer, the arithmetic to the map.

Every layer takes and gives an :class:`~mmsparse.sparse.backends.ActiveMap` of any backend.
Convolutions have no bias and hold ``weight [D, 3, 3, C]``.

Source: SparseRefine (ECCV 2024), supplement sec. 1; Graham et al., "3D Semantic Segmentation with
Submanifold Sparse Convolutional Networks", CVPR 2018. Letters: ``C, D`` channels in and out.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .backends import ActiveMap


class _Conv3x3(nn.Module):
    """What the three convolutions share: a weight and its initialization."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-s, s), s = 1/sqrt(9 C): what SparseRefine was trained from."""
        bound = (9 * self.in_channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}'


class SubMConv2d(_Conv3x3):
    """3x3 convolution whose output lives on the input's pixels (submanifold)."""

    def forward(self, x: ActiveMap) -> ActiveMap:
        """``C`` to ``D`` channels, same pixels."""
        return x.subm_conv(self.weight)


class DownConv2d(_Conv3x3):
    """3x3 convolution, stride 2: a coarse cell is active if any pixel it reads is.

    Args:
        padding: 1 halves a size rounding up, every pixel has a parent. 0 is the mapping of the
            paper's code, ``(n - 3) // 2 + 1``; the last row and column of an even grid have no
            parent.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int) -> None:
        super().__init__(in_channels, out_channels)
        self.padding = padding

    def forward(self, x: ActiveMap) -> ActiveMap | None:
        """``C`` to ``D`` channels on the coarse cells; ``None`` if no cell is active."""
        return x.down_conv(self.weight, self.padding)


class UpConv2d(_Conv3x3):
    """Inverse of the level's :class:`DownConv2d`: back onto exactly the pixels it read."""

    def __init__(self, in_channels: int, out_channels: int, padding: int) -> None:
        super().__init__(in_channels, out_channels)
        self.padding = padding

    def reset_parameters(self) -> None:
        """By fan-out, as transposed convolutions are: U(-s, s), s = 1/sqrt(9 D)."""
        bound = (9 * self.out_channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: ActiveMap, fine: ActiveMap) -> ActiveMap:
        """``C`` coarse to ``D`` fine channels, on the pixels of ``fine``."""
        return fine.up_conv(x, self.weight, self.padding)


class Linear1x1(nn.Linear):
    """1x1 convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, bias=False)

    def forward(self, x: ActiveMap) -> ActiveMap:  # type: ignore[override]
        """``C`` to ``D`` channels, same pixels."""
        return x.linear(self.weight)


class ActiveBatchNorm(nn.BatchNorm1d):
    """Batch norm over the active pixels of the whole batch, then ReLU.

    In training one row has no variance; such a call uses the running statistics and leaves them
    as they are.
    """

    def forward(self, x: ActiveMap) -> ActiveMap:  # type: ignore[override]
        """Same pixels and channels."""
        return x.norm_relu(self)


class BiasReLU(nn.Module):
    """What is left of a norm in inference whose scale the convolution before it took up.

    Args:
        bias: ``[C]``.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: ActiveMap) -> ActiveMap:
        """Same pixels and channels."""
        return x.bias_relu(self.bias)
