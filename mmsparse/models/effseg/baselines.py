"""The heads that EffSeg compares itself with, given the same query.

Mask R-CNN++, PointRend++ and RefineMask++.
Source: EffSeg (2023), sec. 4.1. Letters: ``R`` RoIs, ``K`` classes, ``P`` points of a RoI.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from mmsparse.registry import MODELS

from .queries import QueryFusion
from .rois import RoIMasks, pyramid_rows, sample


@MODELS.register_module()
class QueryMaskHead(BaseModule):
    """Any mask head of mmdet that reads RoI features, with the query fused into them.

    Around ``FCNMaskHead`` this is Mask R-CNN++: 2,906,192 parameters with COCO's 80 classes.

    Args:
        head: config of the mask head; it has ``in_channels``, ``class_agnostic`` and ``loss_mask``.
        query_channels: of the queries; ``None`` fuses none and leaves the head as it is.
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
        """Whether there is one mask whatever the class."""
        return self.head.class_agnostic

    def coarse(self, roi_feats: Tensor, queries: Tensor) -> Tensor:
        """Logits of all classes, ``[R, K, h, w]``."""
        return self.head(self._fused(roi_feats, queries))

    def _fused(self, roi_feats: Tensor, queries: Tensor) -> Tensor:
        return roi_feats if self.fusion is None else self.fusion(roi_feats, queries)

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits of one class of each RoI, ``[R, 1, ...]``."""
        if self.class_agnostic:
            return logits
        return logits[torch.arange(len(logits), device=labels.device), labels][:, None]

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, h, w]`` of the labels' classes.

        Args:
            feats: the pyramid ``[B, C, H, W]``.
            roi_feats: ``[R, C, h, w]``.
            rois: ``[R, 5]``.
            queries: ``[R, query_channels]``.
            labels: int64 ``[R]``.
        """
        return self.of_class(self.coarse(roi_feats, queries), labels)

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             truth: RoIMasks) -> dict[str, Tensor]:
        """The head's own loss, of masks cut at a coverage of 0.5; 0 without RoIs."""
        return self.coarse_loss(self.coarse(roi_feats, queries), truth)

    def coarse_loss(self, logits: Tensor, truth: RoIMasks) -> dict[str, Tensor]:
        """As :meth:`loss`, of logits."""
        if not len(logits):
            return dict(loss_mask=logits.sum())
        target = (truth.coverage(logits.shape[-1]) >= 0.5).float()
        labels = torch.zeros_like(truth.labels) if self.class_agnostic else truth.labels
        return dict(loss_mask=self.head.loss_mask(logits, target, labels))


@MODELS.register_module()
class QueryPointHead(QueryMaskHead):
    """PointRend++: logits at points of the finest level, chosen where the coarse mask is in doubt.

    3,191,968 parameters with COCO's 80 classes. Three subdivisions bring masks of 28x28 to 224x224.

    Args:
        point_head: config of mmdet's ``MaskPointHead``.
        stride: of the finest level.
        num_points, oversample_ratio, importance_sample_ratio: of training, see PointRend.
        subdivision_steps, subdivision_num_points: of inference, see PointRend.
        **kwargs: of :class:`QueryMaskHead`.
    """

    def __init__(self, *, point_head: dict, stride: int = 4, num_points: int = 196,
                 oversample_ratio: int = 3, importance_sample_ratio: float = 0.75,
                 subdivision_steps: int = 3, subdivision_num_points: int = 784, **kwargs) -> None:
        super().__init__(**kwargs)
        self.point_head = MODELS.build(point_head)
        self.stride = stride
        self.points = ConfigDict(
            num_points=num_points, oversample_ratio=oversample_ratio,
            importance_sample_ratio=importance_sample_ratio,
            subdivision_steps=subdivision_steps, subdivision_num_points=subdivision_num_points)

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, 8 h, 8 w]`` with three subdivisions; see :class:`QueryMaskHead`."""
        coarse = self.coarse(roi_feats, queries)
        masks = self.of_class(coarse, labels)
        if not len(rois):
            size = masks.shape[-1] << self.points.subdivision_steps
            return masks.new_empty(0, 1, size, size)
        for _ in range(self.points.subdivision_steps):
            masks = F.interpolate(masks, scale_factor=2, mode='bilinear')
            index, points = self.point_head.get_roi_rel_points_test(
                masks, labels * 0, self.points)
            found = self.of_class(self._at(feats, coarse, rois, points), labels)
            masks = masks.flatten(2).scatter(2, index[:, None], found.to(masks.dtype)).view_as(
                masks)
        return masks

    def _at(self, feats: Sequence[Tensor], coarse: Tensor, rois: Tensor, points: Tensor) -> Tensor:
        """Logits ``[R, K, P]`` at points ``[R, P, 2]``, x and y from 0 to 1 within the RoIs."""
        r, p, _ = points.shape
        image = rois[:, :1].long().expand(r, p).flatten()
        fine = sample(pyramid_rows(feats[:1], [self.stride]), image, image * 0,
                      on_image(rois, points).flatten(0, 1))
        return self.point_head(fine.view(r, p, -1).transpose(1, 2), point_sample(coarse, points))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             truth: RoIMasks) -> dict[str, Tensor]:
        """The coarse head's loss and that of the points."""
        coarse, labels = self.coarse(roi_feats, queries), truth.labels
        losses = self.coarse_loss(coarse, truth)
        if not len(coarse):
            nothing = sum(p.sum() for p in self.point_head.parameters()) * 0
            return dict(losses, loss_point=nothing)
        points = self.point_head.get_roi_rel_points_train(coarse, labels, self.points)
        r, p, _ = points.shape
        roi = torch.arange(r, device=points.device).repeat_interleave(p)
        target = truth.at(roi, on_image(truth.rois, points).flatten(0, 1)).view(r, p)
        return dict(losses, loss_point=self.point_head.loss_point(
            self._at(feats, coarse, truth.rois, points), target, labels))


@MODELS.register_module()
class QueryRefineMaskHead(QueryMaskHead):
    """RefineMask++: see :class:`.refine_mask.RefineMaskHead`, which ``head`` is.

    6,580,590 parameters with COCO's 80 classes.
    """

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor) -> Tensor:
        """Mask logits ``[R, 1, 112, 112]``; see :class:`QueryMaskHead`."""
        return self.head.compose(self.head(feats, self._fused(roi_feats, queries), rois, labels))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             truth: RoIMasks) -> dict[str, Tensor]:
        """The losses of the four masks."""
        said = self.head(feats, self._fused(roi_feats, queries), truth.rois, truth.labels)
        return self.head.loss(said, truth.coverage(said[-1].shape[-1]))


def on_image(rois: Tensor, points: Tensor) -> Tensor:
    """Points ``[R, P, 2]`` within RoIs, 0 to 1, as pixels of the image."""
    low, high = rois[:, None, 1:3], rois[:, None, 3:]
    return low + points * (high - low)
