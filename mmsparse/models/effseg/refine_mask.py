"""RefineMask++, the dense multi-stage mask head that EffSeg is compared with.

Every stage doubles the grid and adds features of a semantic map of the whole image. In the end the
finer of two masks replaces the coarser one along the boundary of the latter alone.

Source: Zhang et al., "RefineMask: Towards High-Quality Instance Segmentation with Fine-Grained
Features", CVPR 2021, and the sizes that EffSeg (arXiv 2307.01545), sec. 4, gives its version of it.
Letters: ``B`` images, ``R`` RoIs, ``C`` channels, ``K`` classes, ``H, W`` size of a feature map,
``g`` cells on a side of a RoI's grid.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmcv.ops import RoIAlign
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    interpolate,
    max_pool2d,
    pad,
)

from mmsparse.losses import zero_loss
from mmsparse.registry import MODELS
from mmsparse.sizes import size_of

GRID = 14
STAGES = 3
# The stages 0 to this one are trained on all cells, and the result begins as the mask of this one.
# The later ones are trained and used near boundaries alone.
LAST_WHOLE_STAGE = 1
# How far from the boundary, in cells of the coarser grid.
TRAIN_WIDTH, TEST_WIDTH = 2, 1


def boundary_band(masks: Tensor, width: int) -> Tensor:
    """The cells along the boundary of masks, on both sides of it.

    They are the foreground cells with a background cell at most ``width`` rows and columns away,
    and the background cells with a foreground cell as near. Beyond the grid is background.

    Args:
        masks: bool ``[R, 1, g, g]``.
        width: in cells.

    Returns:
        bool ``[R, 1, g, g]``.
    """
    side = 2 * width + 1
    near_foreground = max_pool2d(masks.float(), side, 1, width) > 0  # pads with minus infinity
    near_background = max_pool2d(pad((~masks).float(), [width] * 4, value=1.0), side, 1) > 0
    return near_foreground & near_background


def on_finer_grid(band: Tensor) -> Tensor:
    """Give each cell's value to its four children, ``[R, 1, g, g]`` to ``[R, 1, 2 g, 2 g]``."""
    return band.repeat_interleave(2, 2).repeat_interleave(2, 3)


def refine_boundary(coarse: Tensor, fine: Tensor) -> Tensor:
    """Upsample the coarse mask and replace it along its boundary by the finer one.

    Args:
        coarse: logits ``[R, 1, g, g]``.
        fine: logits ``[R, 1, 2 g, 2 g]``.

    Returns:
        Logits ``[R, 1, 2 g, 2 g]``.
    """
    band = on_finer_grid(boundary_band(coarse > 0, TEST_WIDTH))
    return torch.where(band, fine, upsample(coarse))


def upsample(maps: Tensor) -> Tensor:
    """Resize ``[R, C, g, g]`` bilinearly to ``[R, C, 2 g, 2 g]``, without aligned corners."""
    return interpolate(maps, scale_factor=2, mode='bilinear', align_corners=False)


def compose(stage_logits: Sequence[Tensor]) -> Tensor:
    """Make one mask of the predictions of all stages; the first, at 14x14, is not used.

    Args:
        stage_logits: ``[R, 1, g, g]`` for each stage, ``g`` doubles.

    Returns:
        Logits ``[R, 1, g, g]`` of the last grid.
    """
    mask = stage_logits[LAST_WHOLE_STAGE]
    for logits in stage_logits[LAST_WHOLE_STAGE + 1:]:
        mask = refine_boundary(mask, logits)
    return mask


def stage_losses(stage_logits: Sequence[Tensor], targets: Tensor) -> list[Tensor]:
    """Boundary-aware loss: binary cross-entropy, at fine stages near boundaries alone.

    At the stages after ``LAST_WHOLE_STAGE`` it is over the cells whose parent is near the boundary,
    by :func:`boundary_band`, of the target or of the prediction, as composed so far, at the stage
    before.

    Args:
        stage_logits: ``[R, 1, g, g]`` for each stage.
        targets: masks, bool or share of each cell that is covered, ``[R, G, G]``, where each ``g``
            divides ``G``. At a stage, a cell is foreground if half of it or more is.

    Returns:
        For each stage the mean over its cells, float32 scalars, 0 if there are none.
    """
    stage_logits = [logits.float() for logits in stage_logits]
    foreground = [adaptive_avg_pool2d(targets[:, None].float(), size_of(logits)) >= 0.5
                  for logits in stage_logits]
    losses, composed = [], stage_logits[LAST_WHOLE_STAGE].detach()
    for stage, (logits, target) in enumerate(zip(stage_logits, foreground, strict=True)):
        values = binary_cross_entropy_with_logits(logits, target.float(), reduction='none')
        counted = torch.ones_like(target)
        if stage > LAST_WHOLE_STAGE:
            counted = on_finer_grid(boundary_band(foreground[stage - 1], TRAIN_WIDTH)
                                    | boundary_band(composed > 0, TRAIN_WIDTH))
            composed = refine_boundary(composed, logits.detach())
        losses.append((values * counted).sum() / counted.sum().clamp(min=1))
    return losses


class RefineMaskStage(BaseModule):
    """One stage: mixes RoI features, semantic features and mask, and doubles the grid.

    The mixing is the paper's semantic fusion module: the sum of three 3x3 convolutions of dilations
    1, 3 and 5, and of the mean over the grid. EffSeg's sparse version of it is
    :class:`.processing.SemanticFusionModule`.

    Args:
        in_channels: channels of the semantic map.
        channels: ``C``.
        grid: ``g``.
        stride: of the semantic map, in pixels of the network's input.
    """

    def __init__(self, *, in_channels: int, channels: int, grid: int, stride: int) -> None:
        super().__init__()
        self.semantic = nn.Conv2d(in_channels, channels, 1)
        self.roi_align = RoIAlign(grid, spatial_scale=1 / stride, sampling_ratio=1)
        self.mix = nn.Conv2d(2 * channels + 1, channels, 1)
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (1, 3, 5))
        self.merge = nn.Conv2d(channels, channels, 1)
        self.reduce = nn.Conv2d(channels, channels // 2 - 1, 1)

    def forward(self, features: Tensor, logits: Tensor, semantic: Tensor, rois: Tensor) -> Tensor:
        """Features of the next stage.

        Args:
            features: ``[R, C, g, g]``.
            logits: of the mask of this stage, ``[R, 1, g, g]``.
            semantic: ``[B, in_channels, H, W]``.
            rois: float32 ``[R, 5]``: image, x1, y1, x2, y2 in pixels.

        Returns:
            ``[R, C / 2, 2 g, 2 g]``; the last channel is the mask.
        """
        # half precision cannot tell the pixels of a large image apart: 2049 is 2048 in it
        semantic = self.roi_align(self.semantic(semantic).relu().float(), rois.float())
        mask = logits.sigmoid().to(features.dtype)
        x = self.mix(torch.cat([features, semantic.to(features.dtype), mask], 1)).relu()
        x = sum(branch(x).relu() for branch in self.branches) + x.mean((2, 3), keepdim=True)
        x = self.reduce(self.merge(x).relu()).relu()
        return upsample(torch.cat([x, mask], 1))


@MODELS.register_module()
class RefineMaskHead(BaseModule):
    """Masks at 14x14, 28x28, 56x56 and 112x112, each computed from the one before.

    6,317,678 parameters with the defaults. The first three stages have a mask for each class, the
    last one the same for all classes.

    Args:
        num_classes: ``K``.
        in_channels: channels of the pyramid and of the RoI features.
        stride: of the finest map of the pyramid, which the semantic convolutions run on.
        loss_weights: of the masks of the four stages.
        init_cfg: as in mmengine.

    Raises:
        ValueError: there are not four weights, or the channels do not halve three times.
    """

    class_agnostic = False

    def __init__(self, *, num_classes: int = 80, in_channels: int = 256, stride: int = 4,
                 loss_weights: Sequence[float] = (0.5, 0.75, 0.75, 1.0),
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or [
            dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
            dict(type='Normal', std=0.01, override=dict(name='logits'))])
        if len(loss_weights) != STAGES + 1:
            raise ValueError(f'RefineMaskHead.loss_weights must be {STAGES + 1} numbers, got '
                             f'{loss_weights!r}')
        if in_channels % 2**STAGES or in_channels < 2**(STAGES + 1):
            raise ValueError('RefineMaskHead.in_channels must be a multiple of '
                             f'{2**STAGES} from {2**(STAGES + 1)} on, got {in_channels!r}')
        self.in_channels, self.loss_weights = in_channels, tuple(loss_weights)

        def convs(count: int) -> nn.Sequential:
            return nn.Sequential(*(
                ConvModule(in_channels, in_channels, 3, padding=1) for _ in range(count)))

        widths = [in_channels >> stage for stage in range(STAGES + 1)]
        self.instance_convs = convs(2)
        self.semantic_convs = convs(4)
        self.stages = nn.ModuleList(
            RefineMaskStage(in_channels=in_channels, channels=widths[i], grid=GRID << i,
                            stride=stride) for i in range(STAGES))
        self.logits = nn.ModuleList(
            nn.Conv2d(width, num_classes if i < STAGES else 1, 1)
            for i, width in enumerate(widths))

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, labels: Tensor
                ) -> list[Tensor]:
        """Logits of the masks of all stages, each RoI's for its class.

        A stage reads the mask of the stage before, so that the class must be known here.

        Args:
            feats: the pyramid, the finest map first, ``[B, C, H, W]``.
            roi_feats: ``[R, C, 14, 14]``.
            rois: ``[R, 5]``: image, x1, y1, x2, y2 in pixels of the input.
            labels: int64 ``[R]``.

        Returns:
            Four tensors ``[R, 1, g, g]``, ``g`` = 14, 28, 56, 112.
        """
        semantic = self.semantic_convs(feats[0])
        x = self.instance_convs(roi_feats)
        stage_logits = [self.of_class(self.logits[0](x), labels)]
        for stage, logits in zip(self.stages, self.logits[1:], strict=True):
            x = stage(x, stage_logits[-1], semantic, rois)
            stage_logits.append(self.of_class(logits(x), labels))
        return stage_logits

    @staticmethod
    def of_class(logits: Tensor, labels: Tensor) -> Tensor:
        """Pick the map of each RoI's class, ``[R, 1, g, g]``; if all share one, take that."""
        if logits.shape[1] == 1:
            return logits
        return logits[torch.arange(len(labels), device=labels.device), labels][:, None]

    def loss(self, stage_logits: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Weighted :func:`stage_losses`.

        Args:
            stage_logits: of :meth:`forward`.
            targets: masks in the boxes of the RoIs, bool or coverage, ``[R, 112, 112]``.

        Returns:
            ``loss_mask_14``, ``_28``, ``_56``, ``_112``, weighted means over cells. Without RoIs
            they are 0, and give every parameter a gradient, which distributed training waits for.
        """
        losses = stage_losses(stage_logits, targets)
        if len(targets) == 0:
            losses[0] = losses[0] + zero_loss(self.parameters())
        return {f'loss_mask_{logits.shape[-1]}': weight * loss for weight, logits, loss in zip(
            self.loss_weights, stage_logits, losses, strict=True)}

    compose = staticmethod(compose)
