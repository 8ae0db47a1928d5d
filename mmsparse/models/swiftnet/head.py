"""SwiftNet's classifier. Source: Orsic et al., CVPR 2019, sec. 3."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import accuracy
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.registry import MODELS


@MODELS.register_module()
class SwiftNetHead(BaseDecodeHead):
    """Batch norm, ReLU and one convolution on the neck's finest map; serves both models.

    If the data samples hold ``gt_weight_map`` (``mmsparse.LabelBoundaryWeight``), it weighs the
    pixels of every loss.

    Args:
        kernel_size: 1 (default, with a bias: the 2020 release) or 3 (the CVPR release, without).
        bias: of the convolution.
        **kwargs: of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: the kernel size is even.
    """

    conv_seg: nn.Module

    def __init__(self, *, kernel_size: int = 1, bias: bool = True, dropout_ratio: float = 0,
                 init_cfg: dict | None = None, **kwargs: Any) -> None:
        super().__init__(dropout_ratio=dropout_ratio, init_cfg=init_cfg, **kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'SwiftNetHead.kernel_size must be odd, got {kernel_size!r}')
        del self.conv_seg  # so that the norm stands before it, as it is computed
        self.norm = nn.BatchNorm2d(self.in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv_seg = nn.Conv2d(self.in_channels, self.out_channels, kernel_size,
                                  padding=kernel_size // 2, bias=bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, classes, H / 4, W / 4]``."""
        return self.cls_seg(self.relu(self.norm(self._transform_inputs(inputs))))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]
                     ) -> dict[str, Tensor]:
        """Losses of the logits resized to the labels' size, weighed by ``gt_weight_map``."""
        if 'gt_weight_map' not in batch_data_samples[0]:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        size = labels.shape[1:]
        weight = torch.stack([  # smaller images are padded on the right and below
            F.pad(w, (0, size[1] - w.shape[1], 0, size[0] - w.shape[0]))
            for w in (s.gt_weight_map.data.squeeze(0) for s in batch_data_samples)])
        logits = resize(seg_logits, size=size, mode='bilinear',
                        align_corners=self.align_corners)
        losses: dict[str, Tensor] = {}
        losses_decode: list = (
            list(self.loss_decode) if isinstance(self.loss_decode, nn.ModuleList)
            else [self.loss_decode])
        for loss in losses_decode:
            value = loss(logits, labels, weight=weight, ignore_index=self.ignore_index)
            losses[loss.loss_name] = losses.get(loss.loss_name, 0) + value
        losses['acc_seg'] = accuracy(logits, labels, ignore_index=self.ignore_index)
        return losses
