"""CRM's encoder: a ResNet that reads the image and a mask.

Source: Shen et al., "High Quality Segmentation for Ultra High-resolution Images", CVPR 2022, sec. 3
and its released model. Letters: ``B`` masks, ``H, W`` size of the encoder's input.
"""
from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.backbones import ResNet
from torch import Tensor

from mmsparse.registry import MODELS


@MODELS.register_module()
class CRMResNet(ResNet):
    """mmseg's ResNet without its last stage, with four input channels and the stem as an output.

    Depth 50 has 8,546,432 parameters, by torchvision's names. A checkpoint with three input
    channels (ImageNet's) loads too: the fourth starts at zero, so that training begins with a
    network that ignores the mask.

    Args:
        depth: 18, 34, 50, 101 or 152.
        strides, dilations: of the three stages; by default the second is the last that subsamples.
        **kwargs: of mmseg's ``ResNet``.
    """

    def __init__(self,
                 depth: int = 50,
                 *,
                 in_channels: int = 4,
                 strides: Sequence[int] = (1, 2, 1),
                 dilations: Sequence[int] = (1, 1, 2),
                 **kwargs) -> None:
        super().__init__(
            depth, in_channels=in_channels, num_stages=3, strides=strides, dilations=dilations,
            out_indices=(0, 1, 2), contract_dilation=True, **kwargs)
        self._register_load_state_dict_pre_hook(self._extend_input)

    def _extend_input(self, state_dict: dict, prefix: str, *_) -> None:
        key = f'{prefix}conv1.weight'
        weight, own = state_dict.get(key), self.conv1.weight
        if weight is not None and weight.shape[1] < own.shape[1]:
            extended = own.new_zeros(own.shape)
            extended[:, :weight.shape[1]] = weight
            state_dict[key] = extended

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
