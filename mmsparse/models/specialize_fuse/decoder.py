"""HRNet's last stage on the maps of a plain ResNet.

Source: Specialize and Fuse (ICCV 2021), supplement, "ResNet-decoder". Letters: ``B`` images, ``C``
channels, ``H, W`` size.
"""
from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.backbones.hrnet import HRModule
from mmseg.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

from mmsparse.registry import MODELS


@MODELS.register_module()
class HRFusionDecoder(BaseModule):
    """One 3x3 convolution per map to the widths of HRNet, then its multi-resolution modules.

    A neck: a head reads its maps as those of an HRNet, resized to the finest and concatenated.

    Args:
        in_channels: of the maps, fine to coarse, each half the size of the one before.
        channels: of the branches; those of HRNet-W48 by default, as in the paper.
        num_modules: of HRNet's modules; 3, as the last stage of HRNet has. The paper does not say.
        projection_norm: batch norm and ReLU after the 3x3 convolutions. The paper does not say.
        norm_cfg: of all norms.
        init_cfg: how it starts; by default Kaiming's for convolutions.

    Raises:
        ValueError: the numbers of maps and branches differ, or there is no module.
    """

    def __init__(self,
                 *,
                 in_channels: Sequence[int],
                 channels: Sequence[int] = (48, 96, 192, 384),
                 num_modules: int = 3,
                 projection_norm: bool = True,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or [dict(type='Kaiming', layer='Conv2d'),
                                      dict(type='Constant', val=1, layer=['_BatchNorm'])])
        if len(in_channels) != len(channels) or len(channels) < 2:
            raise ValueError('HRFusionDecoder.in_channels and .channels must name the same two or '
                             f'more maps, got {tuple(in_channels)} and {tuple(channels)}')
        if num_modules < 1:
            raise ValueError(f'HRFusionDecoder.num_modules must be at least 1, got {num_modules!r}')
        norm_cfg = norm_cfg or dict(type='BN')
        self.project = nn.ModuleList(
            ConvModule(c_in, c, 3, padding=1, norm_cfg=norm_cfg if projection_norm else None,
                       act_cfg=dict(type='ReLU') if projection_norm else None)
            for c_in, c in zip(in_channels, channels, strict=True))
        # mmseg's module writes into the list of channels it is given, hence a fresh one each
        self.stages = nn.ModuleList(
            HRModule(len(channels), BasicBlock, [4] * len(channels), list(channels),
                     list(channels), norm_cfg=norm_cfg) for _ in range(num_modules))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``[B, in_channels, H / s, W / s]`` to ``[B, channels, H / s, W / s]``."""
        maps = [conv(x) for conv, x in zip(self.project, inputs, strict=True)]
        for stage in self.stages:
            maps = stage(maps)  # mmseg's module overwrites the list, which is ours
        return tuple(maps)
