"""RefineMask++, the dense multi-stage mask head that EffSeg is compared with.

Every stage doubles the grid and mixes each cell with a semantic map of the whole image; in
the end only the boundary of the coarser mask is taken from the finer one.

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

from mmsparse.registry import MODELS

GRID = 14
STAGES = 3
# Stages up to this one are learned everywhere and stand whole in the result.
WHOLE = 1
TRAIN_WIDTH, TEST_WIDTH = 2, 1


def boundary_band(masks: Tensor, width: int) -> Tensor:
    """Cells, on both sides, that see a cell of the other kind within ``width`` rows and columns.

    What lies outside the grid is background.

    Args:
        masks: bool ``[R, 1, g, g]``.
        width: in cells.

    Returns:
        bool, same shape.
    """
    side = 2 * width + 1
    near = max_pool2d(masks.float(), side, 1, width) > 0  # max_pool2d pads with minus infinity
    apart = max_pool2d(pad((~masks).float(), [width] * 4, value=1.0), side, 1) > 0
    return near & apart


def on_finer_grid(band: Tensor) -> Tensor:
    """Each cell as its four children, ``[R, 1, g, g]`` to ``[R, 1, 2 g, 2 g]``."""
    return band.repeat_interleave(2, 2).repeat_interleave(2, 3)


def refine_boundary(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarse mask, upsampled, with the finer one along its boundary.

    Args:
        coarse: logits ``[R, 1, g, g]``.
        fine: logits ``[R, 1, 2 g, 2 g]``.

    Returns:
        Logits ``[R, 1, 2 g, 2 g]``.
    """
    band = on_finer_grid(boundary_band(coarse > 0, TEST_WIDTH))
    return torch.where(band, fine, upsample(coarse))


def upsample(maps: Tensor) -> Tensor:
    """Bilinear, to twice the size; cells keep their area."""
    return interpolate(maps, scale_factor=2, mode='bilinear', align_corners=False)


def compose(stage_logits: Sequence[Tensor]) -> Tensor:
    """One mask of the predictions of all stages; the first, at 14x14, is not used.

    Args:
        stage_logits: ``[R, 1, g, g]`` for each stage, ``g`` doubles.

    Returns:
        Logits ``[R, 1, g, g]`` of the last grid.
    """
    mask = stage_logits[WHOLE]
    for logits in stage_logits[WHOLE + 1:]:
        mask = refine_boundary(mask, logits)
    return mask


def stage_losses(stage_logits: Sequence[Tensor], targets: Tensor) -> list[Tensor]:
    """Boundary-aware loss: binary cross-entropy, on fine grids near boundaries only.

    From the third stage on these are the cells under the boundaries, two cells wide, of the coarser
    target and of the coarser mask as :func:`compose` makes it.

    Args:
        stage_logits: ``[R, 1, g, g]`` for each stage.
        targets: masks, bool or share of the cell that is covered, ``[R, G, G]``, where each ``g``
            divides ``G``. A cell is foreground where half of it or more is.

    Returns:
        The mean over the cells of each stage, float32 scalars, 0 where there is none.
    """
    losses, running, coarser = [], None, None
    for stage, logits in enumerate(stage_logits):
        logits = logits.float()
        target = adaptive_avg_pool2d(targets[:, None].float(), logits.shape[-2:]) >= 0.5
        values = binary_cross_entropy_with_logits(logits, target.float(), reduction='none')
        if stage <= WHOLE:
            where = torch.ones_like(target)
            running = logits.detach()
        else:
            where = on_finer_grid(boundary_band(coarser, TRAIN_WIDTH)
                                  | boundary_band(running > 0, TRAIN_WIDTH))
            running = refine_boundary(running, logits.detach())
        losses.append((values * where).sum() / where.sum().clamp(min=1))
        coarser = target
    return losses


class SemanticFusion(BaseModule):
    """One stage: RoI features, semantic features and mask, mixed and brought to a finer grid.

    Its core is the sum of 3x3 convolutions of dilations 1, 3 and 5 and of the mean over the grid.

    Args:
        in_channels: of the semantic map.
        channels: ``C``.
        grid: ``g``.
        stride: of the semantic map.
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
        # half precision cannot tell the pixels of a large image apart
        semantic = self.roi_align(self.semantic(semantic).relu().float(), rois.float())
        mask = logits.sigmoid().to(features.dtype)
        x = self.mix(torch.cat([features, semantic.to(features.dtype), mask], 1)).relu()
        x = sum(branch(x).relu() for branch in self.branches) + x.mean((2, 3), keepdim=True)
        x = self.reduce(self.merge(x).relu()).relu()
        return upsample(torch.cat([x, mask], 1))


@MODELS.register_module()
class RefineMaskHead(BaseModule):
    """Masks at 14x14, 28x28, 56x56 and 112x112, each from the one before.

    6,317,678 parameters with the defaults. The first three masks are of a class each, the last one
    of all classes.

    Args:
        num_classes: ``K``.
        in_channels: of the pyramid and of the RoI features.
        stride: of the finest map of the pyramid, which the semantic convolutions run on.
        loss_weights: of the four masks.
        init_cfg: as in mmengine.

    Raises:
        ValueError: there are not four weights, or the channels do not halve three times.
    """

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
        self.loss_weights = tuple(loss_weights)

        def convs(count: int) -> nn.Sequential:
            return nn.Sequential(*(
                ConvModule(in_channels, in_channels, 3, padding=1) for _ in range(count)))

        widths = [in_channels >> stage for stage in range(STAGES + 1)]
        self.instance_convs = convs(2)
        self.semantic_convs = convs(4)
        self.stages = nn.ModuleList(
            SemanticFusion(in_channels=in_channels, channels=widths[i], grid=GRID << i,
                           stride=stride) for i in range(STAGES))
        self.logits = nn.ModuleList(
            nn.Conv2d(width, num_classes if i < STAGES else 1, 1)
            for i, width in enumerate(widths))

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, labels: Tensor
                ) -> list[Tensor]:
        """Logits of the masks of given classes.

        A stage reads the mask of the one before, so the classes must be known here.

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
        found = [self.of_class(self.logits[0](x), labels)]
        for stage, logits in zip(self.stages, self.logits[1:], strict=True):
            x = stage(x, found[-1], semantic, rois)
            found.append(self.of_class(logits(x), labels))
        return found

    @staticmethod
    def of_class(logits: Tensor, labels: Tensor) -> Tensor:
        """The map of each RoI's class, ``[R, 1, g, g]``; the only one if there is one for all."""
        if logits.shape[1] == 1:
            return logits
        return logits[torch.arange(len(labels), device=labels.device), labels][:, None]

    def loss(self, stage_logits: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Weighted :func:`stage_losses`.

        Args:
            stage_logits: of :meth:`forward`.
            targets: masks in the boxes of the RoIs, bool or coverage, ``[R, 112, 112]``.

        Returns:
            ``loss_mask_14``, ``_28``, ``_56``, ``_112``: means over cells, as mmdet weighs losses.
            Without RoIs they are 0 and give every parameter a gradient, which DDP waits for.
        """
        losses = stage_losses(stage_logits, targets)
        if len(targets) == 0:
            losses[0] = losses[0] + 0 * sum(p.sum() for p in self.parameters())
        return {f'loss_mask_{logits.shape[-1]}': weight * loss for weight, logits, loss in zip(
            self.loss_weights, stage_logits, losses, strict=True)}

    compose = staticmethod(compose)
