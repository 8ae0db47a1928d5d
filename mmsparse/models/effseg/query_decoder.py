"""FQDet's second stage: a decoder whose queries look at the pyramid from their anchors.

The anchor is the frame of all attention and of the box; it is never updated, and there is one loss,
after the last layer.

Source: Picron et al., "FQDet: Fast-converging Query-based Detector" (arXiv 2210.02318), sec. 3.
Letters: ``B`` images, ``Q`` queries, ``C`` channels, ``L`` levels, ``P`` locations of all levels,
``K`` classes, ``N`` matched queries of all images.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmcv.cnn.bricks.transformer import BaseTransformerLayer
from mmcv.ops import batched_nms
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps, bbox_xyxy_to_cxcywh
from mmdet.utils import InstanceList
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .matching import mean_positives
from .queries import at_least_float32, norm_linear

BRANCHES = ('residual', 'plain')
# A side may become a million times the anchor's: more than any image has, and little enough for
# areas in float32. The authors' has no limit; mmdet's is 62.5.
SIDE_CHANGE = 1e-6


class Decoded(NamedTuple):
    """What the decoder says about the queries.

    Attributes:
        queries: ``[B, Q, C]``.
        logits: float32 ``[B, Q, K + 1]``, the last for no object.
        deltas: float32 ``[B, Q, 4]``, from the anchor to the box.
        anchors: float32 ``[B, Q, 4]``.
    """

    queries: Tensor
    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class Matched(NamedTuple):
    """The matched queries of one image, named as mmdet names a sampler's positives.

    Attributes:
        pos_inds: int64 ``[n]``, queries.
        pos_assigned_gt_inds: int64 ``[n]``, objects.
        pos_gt_labels: int64 ``[n]``, their classes.
        pos_priors: float32 ``[n, 4]``, predicted boxes, detached, in pixels of the input.
    """

    pos_inds: Tensor
    pos_assigned_gt_inds: Tensor
    pos_gt_labels: Tensor
    pos_priors: Tensor


class ResidualBranch(nn.Module):
    """Two layers, the second around a shortcut, and one for the outputs."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = norm_linear(channels), norm_linear(channels)
        self.last = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., outputs]``."""
        x = self.first(x)
        return self.last(x + self.second(x))


def plain_branch(channels: int, outputs: int) -> nn.Sequential:
    """Four linear layers, the second and the third with a ReLU, a norm after the first."""
    return nn.Sequential(
        nn.Linear(channels, channels), nn.LayerNorm(channels),
        nn.Linear(channels, channels), nn.ReLU(inplace=True),
        nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, outputs))


class AnchorCode(nn.Module):
    """Where an anchor is, as the decoder's position code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, channels), norm_linear(channels)

    def forward(self, anchors: Tensor) -> Tensor:
        """``[..., 4]``, center and size as shares of the image's, to ``[..., C]``."""
        x = self.first(anchors)
        return x + self.second(x)


def anchor_frames(anchors: Tensor, shapes: Sequence[tuple[int, int]], strides: Sequence[int]
                  ) -> Tensor:
    """Anchors as deformable attention wants them, in shares of each level's own map.

    A map may reach beyond the image, by less than its stride; the image's size would stretch it.

    Args:
        anchors: ``[B, Q, 4]``, x1, y1, x2, y2 in pixels of the input.
        shapes: height and width of ``L`` maps.
        strides: of the maps, pixels.

    Returns:
        ``[B, Q, L, 4]``: center and size.
    """
    sizes = anchors.new_tensor([(w * s, h * s) * 2 for (h, w), s in zip(
        shapes, strides, strict=True)])
    return bbox_xyxy_to_cxcywh(anchors)[:, :, None] / sizes


def detect(scores: Tensor, boxes: Tensor, cfg: ConfigDict) -> InstanceData:
    """Detections of one image, best first.

    Args:
        scores: float32 ``[Q, K]``, probabilities.
        boxes: float32 ``[Q, 4]``.
        cfg: ``nms_pre``, pairs of query and class that are looked at, ``score_thr``, ``nms`` of
            mmcv's ``batched_nms``, class by class, and ``max_per_img``.

    Returns:
        ``bboxes``, ``scores``, ``labels`` and ``query_inds``, the query of each: a query may be
        found under several classes.
    """
    best, index = scores.flatten().topk(min(cfg.nms_pre, scores.numel()))
    index = index[best > cfg.score_thr]
    query, label = index // scores.shape[1], index % scores.shape[1]
    if len(index):
        _, kept = batched_nms(boxes[query], scores[query, label], label, cfg.nms)
        query, label = query[kept[:cfg.max_per_img]], label[kept[:cfg.max_per_img]]
    return InstanceData(bboxes=boxes[query], scores=scores[query, label], labels=label,
                        query_inds=query)


@MODELS.register_module()
class FQDetBBoxHead(BaseModule):
    """Decoder, classes and boxes of the selected anchors; a ``bbox_head`` of ``FQDetRoIHead``.

    With the defaults 67,584 parameters of the anchor code, 5,753,184 of the decoder, 153,425 of the
    classes' branch and 133,636 of the boxes'; plain branches have 20,817 and 198,916. All start as
    torch starts linear layers: a class is as likely as not.

    Args:
        bbox_coder: config of the coder between anchors and boxes, mmdet's ``DeltaXYWHBBoxCoder``.
        loss_cls, loss_bbox: configs of the losses. Both are sums divided by the number of matched
            queries.
        num_classes: ``K``.
        in_channels: ``C``.
        strides: of the ``L`` levels.
        num_layers: of the decoder.
        ffn_channels: of its feed-forward layers.
        anchor_code: tell the attentions where the anchors are.
        branches: ``'residual'``, two layers and an output for classes and for boxes, the second
            around a shortcut; or ``'plain'`` as FQDetV2's, one layer for classes, four for boxes.
        soft_labels: class targets are the overlaps of predicted and true boxes, as
            ``QualityFocalLoss`` takes them, 1 for no object.
        reg_decoded_bbox: ``loss_bbox`` compares boxes, not deltas.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self,
                 *,
                 bbox_coder: dict,
                 loss_cls: dict,
                 loss_bbox: dict,
                 num_classes: int = 80,
                 in_channels: int = 256,
                 strides: Sequence[int] = (4, 8, 16, 32, 64, 128),
                 num_layers: int = 6,
                 ffn_channels: int = 1024,
                 anchor_code: bool = True,
                 branches: str = 'residual',
                 soft_labels: bool = False,
                 reg_decoded_bbox: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        for name, value in (('num_classes', num_classes), ('num_layers', num_layers),
                            ('ffn_channels', ffn_channels)):
            if value < 1:
                raise ValueError(f'FQDetBBoxHead.{name} must be at least 1, got {value!r}')
        if branches not in BRANCHES:
            raise ValueError(f'FQDetBBoxHead.branches must be one of {BRANCHES}, got {branches!r}')
        self.num_classes, self.strides = num_classes, tuple(strides)
        self.soft_labels, self.reg_decoded_bbox = soft_labels, reg_decoded_bbox
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.loss_cls, self.loss_bbox = MODELS.build(loss_cls), MODELS.build(loss_bbox)
        self.code = AnchorCode(in_channels) if anchor_code else None
        self.decoder = nn.ModuleList(BaseTransformerLayer(
            attn_cfgs=[
                dict(type='MultiScaleDeformableAttention', embed_dims=in_channels, num_heads=8,
                     num_levels=len(self.strides), num_points=1, dropout=0.0),
                dict(type='MultiheadAttention', embed_dims=in_channels, num_heads=8)],
            ffn_cfgs=dict(type='FFN', embed_dims=in_channels, feedforward_channels=ffn_channels),
            operation_order=('norm', 'cross_attn', 'norm', 'self_attn', 'norm', 'ffn'),
            batch_first=True) for _ in range(num_layers))
        outputs = num_classes + 1  # no object is a class of its own, with both kinds of labels
        if branches == 'residual':
            self.classify = ResidualBranch(in_channels, outputs)
            self.regress = ResidualBranch(in_channels, 4)
        else:
            self.classify = nn.Linear(in_channels, outputs)
            self.regress = plain_branch(in_channels, 4)

    def forward(self, x: Sequence[Tensor], proposals: InstanceList, metas: list[dict]) -> Decoded:
        """Decode the proposals of ``FQDetSelector``.

        Args:
            x: ``L`` maps ``[B, C, H, W]``.
            proposals: of each image, ``bboxes`` and ``features``.
            metas: of each image, ``img_shape``.
        """
        anchors = torch.stack([p.bboxes for p in proposals])
        queries = torch.stack([p.features for p in proposals])
        shapes = [tuple(f.shape[-2:]) for f in x]
        areas = [h * w for h, w in shapes]
        seen = dict(
            value=torch.cat([f.flatten(2).transpose(1, 2) for f in x], 1),
            reference_points=anchor_frames(anchors, shapes, self.strides),
            spatial_shapes=torch.tensor(shapes, device=anchors.device),
            level_start_index=torch.tensor(
                [sum(areas[:i]) for i in range(len(areas))], device=anchors.device))
        code = None
        if self.code is not None:
            size = anchors.new_tensor([tuple(m['img_shape'][1::-1]) * 2 for m in metas])
            code = self.code(bbox_xyxy_to_cxcywh(anchors) / size[:, None])
        for layer in self.decoder:
            queries = layer(queries, query_pos=code, **seen)
        return Decoded(queries, at_least_float32(self.classify(queries)),
                       at_least_float32(self.regress(queries)), anchors)

    def boxes(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes ``[N, 4]`` of anchors and deltas; they may reach beyond the image."""
        return self.bbox_coder.decode(anchors, deltas, wh_ratio_clip=SIDE_CHANGE)

    def loss(self, found: Decoded, matched: Tensor, gt_instances: InstanceList
             ) -> tuple[dict[str, Tensor], list[Matched], Tensor]:
        """Losses of classes and boxes.

        Args:
            found: of :meth:`forward`.
            matched: int64 ``[B, Q]``, number of the object in its image, -1 for none.
            gt_instances: of each image.

        Returns:
            The losses, the matched queries of each image, and the number that the losses were
            divided by.
        """
        image, query = (matched >= 0).nonzero(as_tuple=True)
        factor = mean_positives(matched >= 0)
        counts = [len(gt) for gt in gt_instances]
        first = torch.tensor([sum(counts[:i]) for i in range(len(counts))], device=image.device)
        objects = matched[image, query]
        truth = first[image] + objects
        labels = torch.cat([gt.labels for gt in gt_instances])[truth]
        boxes = torch.cat([gt.bboxes for gt in gt_instances]).to(found.anchors)[truth]
        anchors, deltas = found.anchors[image, query], found.deltas[image, query]
        predicted = self.boxes(anchors, deltas)
        target = torch.full_like(matched, self.num_classes)
        target[image, query] = labels
        target = target.flatten()
        if self.soft_labels:
            quality = torch.ones_like(found.deltas[..., 0])
            quality[image, query] = bbox_overlaps(
                predicted.detach(), boxes, is_aligned=True).clamp(min=0)
            target = target, quality.flatten()
        compared = (predicted, boxes) if self.reg_decoded_bbox else (
            deltas, self.bbox_coder.encode(anchors, boxes))
        losses = dict(
            loss_cls=self.loss_cls(found.logits.flatten(0, 1), target, avg_factor=factor),
            loss_bbox=self.loss_bbox(*compared, avg_factor=factor))
        own = (matched >= 0).sum(1).tolist()
        return losses, [Matched(*parts) for parts in zip(
            query.split(own), objects.split(own), labels.split(own),
            predicted.detach().split(own), strict=True)], factor

    def predict(self, found: Decoded, cfg: ConfigDict) -> InstanceList:
        """Detections of each image, in pixels of the input, not cut at its frame.

        See :func:`detect`.
        """
        scores = found.logits[..., :self.num_classes].sigmoid()
        return [detect(score, self.boxes(anchors, deltas), cfg) for score, anchors, deltas in zip(
            scores, found.anchors, found.deltas, strict=True)]
