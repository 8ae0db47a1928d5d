"""W-Net: two small U-Nets in a row, for arteries and veins in photographs of the retina.

Source: Galdran et al., "The Little W-Net That Could: State-of-the-Art Retinal Vessel Segmentation
with Minimalistic Models", 2020. Letters: ``B`` images, ``K`` classes, ``C`` channels, ``H, W``
image size.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS


def convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    """3x3 convolution, ReLU, batch norm, in the paper's order: the norm comes last."""
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True),
            nn.BatchNorm2d(out_channels)]


class Block(nn.Module):
    """Two convolutions and a projected shortcut; nothing follows the sum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.block = nn.Sequential(
            *convolution(in_channels, out_channels), *convolution(out_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, out_channels, H, W]``."""
        return self.block(x) + self.shortcut(x)


class Up(nn.Module):
    """Twice the size, joined with the skip behind its bridge, then a block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up_layer = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv_bridge_layer = nn.Sequential(*convolution(out_channels, out_channels))
        self.conv_layer = Block(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``[B, in_channels, h, w]`` and ``[B, out_channels, 2h, 2w]`` to the latter's shape."""
        return self.conv_layer(torch.cat([self.up_layer(x), self.conv_bridge_layer(skip)], 1))


class UNet(nn.Module):
    """One of the two U-Nets, without its classifier."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = Block(in_channels, widths[0])
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down_path = nn.ModuleList(Block(fine, coarse) for fine, coarse in pairs)
        self.up_path = nn.ModuleList(Up(coarse, fine) for fine, coarse in reversed(pairs))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]``, sides divisible, to ``[B, widths[0], H, W]``."""
        skips = [self.first(x)]
        for down in self.down_path:
            skips.append(down(self.pool(skips[-1])))
        x = skips.pop()
        for up in self.up_path:
            x = up(x, skips.pop())
        return x


@MODELS.register_module()
class WNet(BaseModule):
    """Two U-Nets in a row; the second also reads the first one's class scores.

    Gives ``(features [B, widths[0], H, W] of the second, scores [B, K, H, W] of the first)``, for
    a ``FCNHead`` without convolutions and a :class:`ScoresHead` beside it.

    Args:
        num_classes: ``K`` of the first U-Net's scores.
        widths: channels of the levels; every level halves the size.
        init_cfg: as in mmengine.

    Raises:
        ValueError: at the call, a side of the image is no multiple of the deepest stride.
    """

    def __init__(self, *, num_classes: int, widths: Sequence[int] = (8, 16, 32, 64),
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.stride = 2 ** (len(widths) - 1)
        self.unet1 = UNet(3, widths)
        self.final1 = nn.Conv2d(widths[0], num_classes, 1)
        self.unet2 = UNet(3 + num_classes, widths)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[B, 3, H, W]`` in 0..1, RGB, to features and first scores."""
        if any(int(n) % self.stride for n in x.shape[2:]):
            raise ValueError(f'WNet needs sides that are multiples of {self.stride}, got '
                             f'{list(x.shape[2:])}')
        scores = self.final1(self.unet1(x))
        return self.unet2(torch.cat([x, scores], 1)), scores

