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

from .sampling import Window, needed, resize_aligned, whole

# Which of the encoder's outputs are fused: stem, conv2_x, conv3_x, conv4_x are 0 to 3.
FUSED = {'stem-2-4': (0, 1, 3), '2-3-4': (1, 2, 3)}


def branch(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    """1x1 convolution with two norms, as released."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True),
        nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.Dropout(dropout))


@MODELS.register_module()
class CRMFusionNeck(BaseModule):
    """Three branches, resized to one size, joined and blended by a 3x3 convolution.

    With the defaults 742,912 parameters and a map of half the encoder's input. Its convolutions
    start with Kaiming's normal initialization, as released: a deviation of sqrt(2 / fan-in).

    Args:
        in_channels: of the three fused stages.
        fuse: ``'stem-2-4'`` (default, the released model: stem, conv2_x, conv4_x) or ``'2-3-4'``
            (the supplement's text).
        out_level: which of the three gives the map its size.
        widths: of the branches.
        channels: of the map.
        dropout: in training.

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
                held: Sequence[Window] | None = None, wanted: Window | None = None) -> Tensor:
        """The fused map, or a window of it.

        Without the optional arguments the stages are whole. A tile gives what it holds of them: the
        stages are then resized by the coordinates of the whole image, so that tiles fit together.

        Args:
            stages: all outputs of the encoder.
            sizes: of the whole stages.
            held: what of each stage is there.
            wanted: what of the fused map is asked for.

        Returns:
            ``[B, channels, *wanted.size]``.
        """
        stages = [stages[i] for i in self.stages]
        if sizes is None:
            sizes = [tuple(x.shape[2:]) for x in stages]
            held = [whole(size) for size in sizes]
        else:
            sizes, held = [sizes[i] for i in self.stages], [held[i] for i in self.stages]
        size = sizes[self.out_level]
        wanted = whole(size) if wanted is None else wanted
        margin = wanted.grown(1, size)  # the convolution's; at the frame it pads with zeros
        maps = []
        for layer, x, source, part in zip(self.branches, stages, sizes, held, strict=True):
            use = needed(margin, size, source)
            maps.append(resize_aligned(
                layer(use.within(part).of(x)), size, margin, source=source, held=use))
        return wanted.within(margin).of(self.blend(torch.cat(maps, 1)))
