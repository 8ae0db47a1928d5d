"""Losses on class scores that a backbone gives by itself."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmsparse.registry import MODELS


@MODELS.register_module()
class ScoresHead(BaseDecodeHead):
    """Puts mmseg's losses on scores that the backbone gives; has no parameters.

    Args:
        num_classes: ``K``.
        kwargs: of mmseg's ``BaseDecodeHead``: ``loss_decode``, ``ignore_index``.
    """

    def __init__(self, *, num_classes: int, **kwargs: Any) -> None:
        super().__init__(in_channels=num_classes, channels=num_classes, num_classes=num_classes,
                         in_index=1, dropout_ratio=0, init_cfg=None, **kwargs)
        self.conv_seg = nn.Identity()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The backbone's scores ``[B, K, H, W]``."""
        return self._transform_inputs(inputs)
