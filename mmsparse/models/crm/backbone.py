"""CRM's encoder: a classification network that reads the image and a mask.

Source: Shen et al., "High Quality Segmentation for Ultra High-resolution Images", CVPR 2022, sec. 3
and its released model. Letters: ``B`` masks, ``H, W`` size of the encoder's input.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.backbones import MobileNetV2, ResNet
from torch import Tensor

from mmsparse.registry import MODELS


class MaskInput(BaseModule):
    """Loads weights of a network for images into one that reads a mask as its fourth channel.

    The mask's weights start at 0, so that training begins with a network that ignores the mask.

    Attributes:
        FIRST: name of the first convolution.
    """

    FIRST: str

    def _extend_input(self, state_dict: dict, prefix: str, *_: Any) -> None:
        """State-dict hook: give the first convolution a fourth input channel of zeros."""
        key = f'{prefix}{self.FIRST}.weight'
        weight, parameter = state_dict.get(key), self.get_parameter(f'{self.FIRST}.weight')
        if weight is not None and weight.shape[1] < parameter.shape[1]:
            extended = parameter.new_zeros(parameter.shape)
            extended[:, :weight.shape[1]] = weight
            state_dict[key] = extended


@MODELS.register_module()
class CRMResNet(MaskInput, ResNet):
    """mmseg's ResNet without its last stage, with four input channels and the stem as an output.

    Depth 50 has 8,546,432 parameters, by torchvision's names; ImageNet's weights load.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: of the image and the mask.
        strides, dilations: of the three stages. By default the third is dilated instead of
            subsampled.
        **kwargs: of mmseg's ``ResNet``.
    """

    FIRST = 'conv1'

    def __init__(self,
                 depth: int = 50,
                 *,
                 in_channels: int = 4,
                 strides: Sequence[int] = (1, 2, 1),
                 dilations: Sequence[int] = (1, 1, 2),
                 **kwargs: Any) -> None:
        super().__init__(
            depth, in_channels=in_channels, num_stages=3, strides=strides, dilations=dilations,
            out_indices=(0, 1, 2), contract_dilation=True, **kwargs)
        self._register_load_state_dict_pre_hook(self._extend_input)

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Strides of the four outputs."""
        strides = [2, 4]
        for stride in self.strides[1:]:
            strides.append(strides[-1] * stride)
        return tuple(strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Stem and three stages.

        Args:
            x: image and mask, ``[B, 4, H, W]``; the image normalized, the mask from -1 to 1.

        Returns:
            For depth 50: ``[B, 64, H / 2, W / 2]`` (before pooling), ``[B, 256, H / 4, W / 4]``,
            ``[B, 512, H / 8, W / 8]``, ``[B, 1024, H / 8, W / 8]``, sizes rounded up.
        """
        stem = x = self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = [stem]
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outs.append(x)
        return tuple(outs)


@MODELS.register_module()
class CRMMobileNetV2(MaskInput, MobileNetV2):
    """mmseg's MobileNetV2 up to its fifth stage, with the mask as fourth input channel.

    A light encoder (0.5 M parameters): not the paper's. Its stages from the fourth on are dilated
    instead of subsampled.

    Args:
        **kwargs: of mmseg's ``MobileNetV2``.
    """

    FIRST = 'conv1.conv'
    conv1: ConvModule
    stage_strides = (2, 4, 8, 8)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 2, 2),
                         out_indices=(0, 1, 2, 4), **kwargs)
        self.conv1 = ConvModule(4, self.conv1.out_channels, 3, stride=2, padding=1,
                                norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        for name in self.layers[5:]:
            delattr(self, name)
        del self.layers[5:]
        self._register_load_state_dict_pre_hook(self._extend_input)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Four stages.

        Args:
            x: image and mask, ``[B, 4, H, W]``; the image normalized, the mask from -1 to 1.

        Returns:
            ``[B, 16, H / 2, W / 2]``, ``[B, 24, H / 4, W / 4]``, ``[B, 32, H / 8, W / 8]``,
            ``[B, 96, H / 8, W / 8]``, sizes rounded up.
        """
        return super().forward(x)
