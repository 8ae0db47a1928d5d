"""CRM's fusion of three encoder stages into one map.

Source: CRM (CVPR 2022), sec. 3, supplement Table 1. Letters: ``B`` masks, ``H, W`` size of the
encoder's input.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sizes import size_of

from .sampling import Window, resize_aligned, source_window, whole

# Which of the encoder's outputs are fused: stem, conv2_x, conv3_x, conv4_x are 0 to 3.
FUSED = {'stem-2-4': (0, 1, 3), '2-3-4': (1, 2, 3)}


def branch(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    """A 1x1 convolution, then norm and ReLU twice, as in the released model."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True),
        nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.Dropout(dropout))


@MODELS.register_module()
class CRMFusionNeck(BaseModule):
    """Bring three encoder outputs to one size, concatenate them, and blend by a 3x3 convolution.

    With the defaults 742,912 parameters and a map of half the encoder's input. Its convolutions
    start with Kaiming's normal initialization, as released: a deviation of sqrt(2 / fan-in).

    Args:
        in_channels: channels of the three fused stages.
        fuse: which stages: ``'stem-2-4'`` (default, the released model: stem, conv2_x, conv4_x) or
            ``'2-3-4'`` (the supplement's text).
        out_level: number, 0 to 2, of the fused stage whose size the result has.
        widths: channels of the three before they are concatenated.
        channels: of the result.
        dropout: probability, in training.

    Raises:
        ValueError: ``fuse`` is unknown, or an argument has not three entries.
    """

    def __init__(self,
                 *,
                 in_channels: Sequence[int] = (64, 256, 1024),
                 fuse: str = 'stem-2-4',
                 out_level: int = 0,
                 widths: Sequence[int] = (64, 64, 128),
                 channels: int = 256,
                 dropout: float = 0.5,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(type='Kaiming', layer='Conv2d', mode='fan_in'))
        if fuse not in FUSED:
            raise ValueError(f'CRMFusionNeck.fuse must be one of {tuple(FUSED)}, got {fuse!r}')
        if len(in_channels) != 3 or len(widths) != 3 or out_level not in range(3):
            raise ValueError('CRMFusionNeck fuses three stages: in_channels and widths have three '
                             f'entries, out_level is 0, 1 or 2, got {in_channels!r}, {widths!r}, '
                             f'{out_level!r}')
        self.stages = FUSED[fuse]
        self.out_level = out_level
        self.channels = channels
        self.branches = nn.ModuleList(
            branch(c, width, dropout) for c, width in zip(in_channels, widths, strict=True))
        self.blend = nn.Sequential(
            nn.Conv2d(sum(widths), channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def forward(self, stages: Sequence[Tensor], sizes: Sequence[tuple[int, int]] | None = None,
                windows: Sequence[Window] | None = None, window: Window | None = None) -> Tensor:
        """Fuse the encoder's outputs for a whole image, or for one tile of it.

        For a whole image, give ``stages`` alone. For a tile, say as well where it lies: the stages
        are then resized by the coordinates of the whole image, so that tiles meet without seams.

        Args:
            stages: all four outputs of the encoder, ``[B, in_channels, h, w]``.
            sizes: height and width that each of them would have for the whole image.
            windows: which part of each whole output the given one is.
            window: which part of the fused map to compute; all by default. The given parts of the
                outputs contain what it reads.

        Returns:
            ``[B, channels, *window.size]``.
        """
        stages = [stages[i] for i in self.stages]
        sizes = [size_of(x) for x in stages] if sizes is None else [sizes[i] for i in self.stages]
        windows = [whole(size) for size in sizes] if windows is None else [
            windows[i] for i in self.stages]
        size = sizes[self.out_level]
        window = whole(size) if window is None else window
        # one cell more for the 3x3 convolution; at the image's frame it pads with zeros
        margin = window.grown(1, size)
        maps = []
        for layer, x, source_size, x_window in zip(
                self.branches, stages, sizes, windows, strict=True):
            used = source_window(margin, size, source_size)
            maps.append(resize_aligned(
                layer(used.relative_to(x_window).of(x)), size, margin,
                source_size=source_size, x_window=used))
        return window.relative_to(margin).of(self.blend(torch.cat(maps, 1)))
