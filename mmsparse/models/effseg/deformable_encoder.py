"""A feature pyramid with an encoder of deformable attention: "DefEnc" in EffSeg's tables.

Source: EffSeg (2023), sec. 4.2, which takes Mask DINO's pixel decoder (arXiv 2206.02777) with
narrower feed-forward layers. Letters: ``B`` images, ``C`` channels, ``H, W`` size of a map. C2 to
C5 are the outputs of a ResNet, P2 to P7 the levels of the pyramid, both from stride 4 on.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.layers.transformer import Mask2FormerTransformerEncoder
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sizes import size_of

from .rois import starts


def grid_points(shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Centers of all cells of all maps, relative to the map's size.

    Example: the cells of a map of 2x4, in rows, are at (1/8, 1/4), (3/8, 1/4) and so on.

    Args:
        shapes: height and width of the maps.
        device: of the result.

    Returns:
        ``[sum of H W, 2]``, x and y from 0 to 1.
    """
    points = []
    for h, w in shapes:
        y, x = ((torch.arange(n, device=device) + 0.5) / n for n in (h, w))
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).view(-1, 2))
    return torch.cat(points)


@MODELS.register_module()
class DeformableEncoder(BaseModule):
    """Computes P2 to P7 from C2 to C5, in place of an FPN.

    C3 to C5, and a C6 that a strided convolution makes of C5, attend to each other by deformable
    attention and become P3 to P6. P2 is the sum of C2, projected, and the upsampled map at C3's
    size. P7 is made of P6 by a strided convolution.

    12,018,176 parameters with the defaults. The paper describes no more than their number, which
    leaves one 3x3 convolution beyond those of P2 and P7; its number of multiply-accumulates tells
    that this convolution is at P3.

    Args:
        in_channels: channels of C2 to C5.
        channels: ``C``.
        num_layers: number of layers of the encoder.
        num_points: sampling points of each attention head at each level.
        ffn_channels: hidden channels of the encoder's feed-forward layers.

    Raises:
        ValueError: ``in_channels`` are not four.
    """

    def __init__(self, *, in_channels: Sequence[int] = (256, 512, 1024, 2048), channels: int = 256,
                 num_layers: int = 6, num_points: int = 4, ffn_channels: int = 1024,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(
            type='Xavier', layer='Conv2d', distribution='uniform'))
        if len(in_channels) != 4:
            raise ValueError('DeformableEncoder.in_channels must be four numbers, of C2 to C5, got '
                             f'{in_channels!r}')
        norm = dict(type='GN', num_groups=32)
        # the projections have a bias although a norm follows, as in Mask DINO
        kwargs = dict(bias=True, norm_cfg=norm, act_cfg=None)
        self.project = nn.ModuleList(ConvModule(n, channels, 1, **kwargs) for n in in_channels[1:])
        self.coarser = ConvModule(in_channels[-1], channels, 3, stride=2, padding=1, **kwargs)
        self.position = SinePositionalEncoding(channels // 2, normalize=True)
        self.level = nn.Embedding(4, channels)
        self.encoder = Mask2FormerTransformerEncoder(num_layers=num_layers, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=channels, num_heads=8, num_levels=4,
                               num_points=num_points, dropout=0.0, batch_first=True),
            ffn_cfg=dict(embed_dims=channels, feedforward_channels=ffn_channels, num_fcs=2,
                         ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))))
        self.lateral = ConvModule(in_channels[0], channels, 1, norm_cfg=norm, act_cfg=None)
        self.smooth = nn.ModuleList(
            ConvModule(channels, channels, 3, padding=1, norm_cfg=norm) for _ in range(2))
        self.coarsest = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def init_weights(self) -> None:
        """Start the encoder as Deformable DETR's."""
        super().init_weights()
        for p in self.encoder.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        for module in self.encoder.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level.weight)

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            x: C2 to C5, ``[B, in_channels, H, W]``, strides 4 to 32.

        Returns:
            Six maps ``[B, C, H, W]``, strides 4 to 128.
        """
        maps = [conv(f) for conv, f in zip(self.project, x[1:], strict=True)]
        maps.append(self.coarser(x[-1]))
        maps = self._encode(maps)
        p2 = self.lateral(x[0])
        p2 = p2 + F.interpolate(maps[0], size=p2.shape[-2:], mode='bilinear')
        return (self.smooth[0](p2), self.smooth[1](maps[0]), *maps[1:],
                self.coarsest(F.relu(maps[-1])))

    def _encode(self, maps: list[Tensor]) -> list[Tensor]:
        """Pass four maps ``[B, C, H, W]`` through the encoder, to four of the same sizes."""
        shapes, device = [size_of(f) for f in maps], maps[0].device
        areas = [h * w for h, w in shapes]
        codes = [
            self.position(torch.zeros(1, *shape, dtype=torch.bool, device=device))
            + level[None, :, None, None] for shape, level in zip(
                shapes, self.level.weight, strict=True)]  # [1, C, H, W] each
        rows, code = (torch.cat([f.flatten(2).transpose(1, 2) for f in group], 1)
                      for group in (maps, codes))  # [B, sum of H W, C], [1, sum of H W, C]
        rows = self.encoder(
            query=rows, query_pos=code, key_padding_mask=None, valid_ratios=None,
            reference_points=grid_points(shapes, device)[None, :, None].expand(
                len(rows), -1, len(maps), 2),
            spatial_shapes=torch.tensor(shapes, device=device),
            level_start_index=torch.tensor(starts(areas), device=device))
        return [f.transpose(1, 2).unflatten(2, shape) for f, shape in zip(
            rows.split(areas, 1), shapes, strict=True)]
