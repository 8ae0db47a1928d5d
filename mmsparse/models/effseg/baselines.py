"""The mask heads that EffSeg is compared with: Mask R-CNN++, PointRend++ and RefineMask++.

They are those of Mask R-CNN, PointRend and RefineMask with the same query fused in as EffSeg's.

Source: EffSeg (2023), sec. 4.1. Letters: ``R`` RoIs, ``K`` classes, ``P`` points of a RoI.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from mmsparse.losses import zero_loss
from mmsparse.registry import MODELS

from .queries import QueryFusion
from .rois import RoIMasks, pyramid_rows, sample_pyramid


@MODELS.register_module()
class QueryMaskHead(BaseModule):
    """Any mask head of mmdet that reads RoI features, with a query fused into these.

    Around ``FCNMaskHead`` this is Mask R-CNN++: 2,906,192 parameters with COCO's 80 classes.

    Args:
        head: config of the mask head; it has ``in_channels``, ``class_agnostic`` and ``loss_mask``.
        query_channels: channels of the queries; ``None``: the head is left as it is.
    """

    def __init__(self, *, head: dict, query_channels: int | None = 256,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.head = MODELS.build(head)
        self.fusion = None
        if query_channels is not None:
            self.fusion = QueryFusion(query_channels, self.head.in_channels)

    @property
    def class_agnostic(self) -> bool:
        """Whether the mask is the same for all classes."""
        return self.head.class_agnostic

    def coarse(self, roi_feats: Tensor, queries: Tensor) -> Tensor:
        """The head's mask logits of all classes, ``[R, K, h, w]``, or ``[R, 1, h, w]``."""
        return self.head(self.fused(roi_feats, queries))

    def fused(self, roi_feats: Tensor, queries: Tensor) -> Tensor:
        """The RoI features that the head reads, ``[R, C, h, w]``: with the queries, if any."""
        return roi_feats if self.fusion is None else self.fusion(roi_feats, queries)

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Pick one class for each RoI: ``[R, K, ...]`` and int64 ``[R]`` to ``[R, 1, ...]``."""
        if self.class_agnostic:
            return logits
        return logits[torch.arange(len(logits), device=labels.device), labels][:, None]

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, h, w]`` of the labels' classes.

        Args:
            feats: the pyramid, ``[B, C, H, W]``, finest level first.
            roi_feats: ``[R, C, h, w]``.
            rois: ``[R, 5]``: image, x1, y1, x2, y2 in pixels of the network's input.
            queries: ``[R, query_channels]``.
            labels: int64 ``[R]``, classes.
        """
        return self.of_class(self.coarse(roi_feats, queries), labels)

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             gt_masks: RoIMasks) -> dict[str, Tensor]:
        """The head's own loss; a cell belongs to the object if half of it or more is covered.

        Args:
            feats, roi_feats, queries: as of :meth:`forward`.
            gt_masks: the RoIs and their masks; without RoIs the loss is 0.
        """
        return self.coarse_loss(self.coarse(roi_feats, queries), gt_masks)

    def coarse_loss(self, logits: Tensor, gt_masks: RoIMasks) -> dict[str, Tensor]:
        """The same for logits of :meth:`coarse`."""
        if not len(logits):
            return dict(loss_mask=logits.sum())
        target = (gt_masks.coverage(logits.shape[-1]) >= 0.5).float()
        labels = torch.zeros_like(gt_masks.labels) if self.class_agnostic else gt_masks.labels
        return dict(loss_mask=self.head.loss_mask(logits, target, labels))


@MODELS.register_module()
class QueryPointHead(QueryMaskHead):
    """PointRend++: the coarse mask is predicted anew at points where it is uncertain.

    3,191,968 parameters with COCO's 80 classes. Three subdivisions bring masks of 28x28 to 224x224.

    Args:
        point_head: config of mmdet's ``MaskPointHead``.
        stride: of the finest level, which points are read from.
        num_points, oversample_ratio, importance_sample_ratio: settings of training, see PointRend.
        subdivision_steps, subdivision_num_points: settings of inference, see PointRend.
        **kwargs: of :class:`QueryMaskHead`.
    """

    def __init__(self, *, point_head: dict, stride: int = 4, num_points: int = 196,
                 oversample_ratio: int = 3, importance_sample_ratio: float = 0.75,
                 subdivision_steps: int = 3, subdivision_num_points: int = 784,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.point_head = MODELS.build(point_head)
        self.stride = stride
        self.points = ConfigDict(
            num_points=num_points, oversample_ratio=oversample_ratio,
            importance_sample_ratio=importance_sample_ratio,
            subdivision_steps=subdivision_steps, subdivision_num_points=subdivision_num_points)

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, 8 h, 8 w]`` with three subdivisions.

        Arguments are those of :meth:`QueryMaskHead.forward`.
        """
        coarse = self.coarse(roi_feats, queries)
        masks = self.of_class(coarse, labels)
        if not len(rois):
            size = masks.shape[-1] << self.points.subdivision_steps
            return masks.new_empty(0, 1, size, size)
        for _ in range(self.points.subdivision_steps):
            masks = F.interpolate(masks, scale_factor=2, mode='bilinear')
            index, points = self.point_head.get_roi_rel_points_test(
                masks, torch.zeros_like(labels), self.points)
            logits = self.of_class(self._logits_at(feats, coarse, rois, points), labels)
            masks = masks.flatten(2).scatter(2, index[:, None], logits.to(masks.dtype)).view_as(
                masks)
        return masks

    def _logits_at(self, feats: Sequence[Tensor], coarse: Tensor, rois: Tensor, points: Tensor
                   ) -> Tensor:
        """Logits of all classes at points.

        Args:
            feats: the pyramid.
            coarse: logits of :meth:`coarse`.
            rois: ``[R, 5]``.
            points: ``[R, P, 2]``, x and y from 0 to 1 within each RoI.

        Returns:
            ``[R, K, P]``.
        """
        r, p, _ = points.shape
        image = rois[:, :1].long().expand(r, p).flatten()
        fine = sample_pyramid(pyramid_rows(feats[:1], [self.stride]), image,
                              torch.zeros_like(image), on_image(rois, points).flatten(0, 1))
        return self.point_head(  # both [R, C, P]
            fine.view(r, p, -1).transpose(1, 2), point_sample(coarse, points))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             gt_masks: RoIMasks) -> dict[str, Tensor]:
        """The loss of the coarse mask and that of the points; see :meth:`QueryMaskHead.loss`."""
        coarse, labels = self.coarse(roi_feats, queries), gt_masks.labels
        losses = self.coarse_loss(coarse, gt_masks)
        if not len(coarse):
            return dict(losses, loss_point=zero_loss(self.point_head.parameters()))
        points = self.point_head.get_roi_rel_points_train(coarse, labels, self.points)
        r, p, _ = points.shape
        roi = torch.arange(r, device=points.device).repeat_interleave(p)
        target = gt_masks.at(roi, on_image(gt_masks.rois, points).flatten(0, 1)).view(r, p)
        return dict(losses, loss_point=self.point_head.loss_point(
            self._logits_at(feats, coarse, gt_masks.rois, points), target, labels))


@MODELS.register_module()
class QueryRefineMaskHead(QueryMaskHead):
    """RefineMask++: a query fused into the RoI features of :class:`.refine_mask.RefineMaskHead`.

    6,580,590 parameters with COCO's 80 classes.
    """

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, 112, 112]``; see :class:`QueryMaskHead`."""
        return self.head.compose(self.head(feats, self.fused(roi_feats, queries), rois, labels))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             gt_masks: RoIMasks) -> dict[str, Tensor]:
        """The losses of the masks of all stages; see :meth:`QueryMaskHead.loss`."""
        stage_logits = self.head(
            feats, self.fused(roi_feats, queries), gt_masks.rois, gt_masks.labels)
        return self.head.loss(stage_logits, gt_masks.coverage(stage_logits[-1].shape[-1]))


def on_image(rois: Tensor, points: Tensor) -> Tensor:
    """Convert points from RoIs to the image.

    Args:
        rois: ``[R, 5]``.
        points: ``[R, P, 2]``, x and y from 0 to 1 within each RoI.

    Returns:
        ``[R, P, 2]``, x and y in pixels of the network's input.
    """
    low, high = rois[:, None, 1:3], rois[:, None, 3:]
    return low + points * (high - low)
