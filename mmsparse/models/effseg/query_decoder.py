"""FQDet's second stage: a decoder whose queries attend to the pyramid around their anchors.

In every layer a query's sampling points, and at the end its box, are relative to its anchor. Unlike
in Deformable DETR with box refinement, that reference stays the same from layer to layer, and only
the last layer has a loss.

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
from mmsparse.sizes import size_of

from .matching import mean_positives
from .queries import at_least_float32, norm_linear
from .rois import starts

BRANCHES = ('residual', 'plain')
# A side may become a million times the anchor's: more than any image has, and little enough for
# areas in float32. The authors' has no limit; mmdet's is 62.5.
SIDE_CHANGE = 1e-6


class Decoded(NamedTuple):
    """The output of the decoder.

    Attributes:
        queries: ``[B, Q, C]``, after the last layer.
        logits: float32 ``[B, Q, K + 1]``, of the classes and, last, of no object.
        deltas: float32 ``[B, Q, 4]``, from anchor to box, as the box coder encodes them.
        anchors: float32 ``[B, Q, 4]``, x1, y1, x2, y2 in pixels of the input.
    """

    queries: Tensor
    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class Matched(NamedTuple):
    """The ``n`` matched queries of one image; fields as of mmdet's ``SamplingResult``.

    Attributes:
        pos_inds: int64 ``[n]``, numbers of the queries.
        pos_assigned_gt_inds: int64 ``[n]``, numbers of their objects within the image.
        pos_gt_labels: int64 ``[n]``, classes of the objects.
        pos_priors: float32 ``[n, 4]``, predicted boxes, detached, in pixels of the input.
    """

    pos_inds: Tensor
    pos_assigned_gt_inds: Tensor
    pos_gt_labels: Tensor
    pos_priors: Tensor


class ResidualBranch(nn.Module):
    """Two blocks of norm, ReLU and linear layer, the second with a shortcut; a linear layer."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = norm_linear(channels), norm_linear(channels)
        self.last = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., outputs]``."""
        x = self.first(x)
        return self.last(x + self.second(x))


def plain_branch(channels: int, outputs: int) -> nn.Sequential:
    """Linear, norm, linear, ReLU, linear, ReLU, linear."""
    return nn.Sequential(
        nn.Linear(channels, channels), nn.LayerNorm(channels),
        nn.Linear(channels, channels), nn.ReLU(inplace=True),
        nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, outputs))


class AnchorCode(nn.Module):
    """The position code of the decoder's attentions, learned from place and size of the anchors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, channels), norm_linear(channels)

    def forward(self, anchors: Tensor) -> Tensor:
        """Compute the codes.

        Args:
            anchors: ``[..., 4]``, center x, y, width and height, each divided by the image's.

        Returns:
            ``[..., C]``.
        """
        x = self.first(anchors)
        return x + self.second(x)


def anchor_frames(anchors: Tensor, shapes: Sequence[tuple[int, int]], strides: Sequence[int]
                  ) -> Tensor:
    """Reference boxes for deformable attention: the anchors relative to the map of each level.

    A map whose stride does not divide the image's size reaches beyond the image, so that anchors
    are divided by the size of what the map covers. Example: an image 100 pixels wide has 4 cells of
    stride 32, which cover 128 pixels; an anchor at x = 64 is at half of that map, not at 0.64.

    Args:
        anchors: ``[B, Q, 4]``, x1, y1, x2, y2 in pixels of the input.
        shapes: height and width of the ``L`` maps, in cells.
        strides: of the maps, in pixels.

    Returns:
        ``[B, Q, L, 4]``: center x, y, width and height as shares of the map.
    """
    sizes = anchors.new_tensor([(w * s, h * s) * 2 for (h, w), s in zip(
        shapes, strides, strict=True)])
    return bbox_xyxy_to_cxcywh(anchors)[:, :, None] / sizes


def detect(scores: Tensor, boxes: Tensor, cfg: ConfigDict) -> InstanceData:
    """Turn the scores of one image's queries into detections.

    A query may become several detections, of the same box and different classes.

    Args:
        scores: float32 ``[Q, K]``, probabilities.
        boxes: float32 ``[Q, 4]``.
        cfg: ``nms_pre``: how many pairs of query and class, those of the highest scores, are
            considered; ``score_thr``: their scores must exceed this; ``nms``: config of mmcv's
            ``batched_nms``, which suppresses within each class; ``max_per_img``: how many
            detections are kept.

    Returns:
        ``bboxes``, ``scores``, ``labels`` and ``query_inds``, the number of the query; best first.
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
    """Decodes the selected anchors' queries to classes and boxes: ``FQDetRoIHead.bbox_head``.

    With the defaults the anchor code has 67,584 parameters, the decoder 5,753,184, the branch for
    classes 153,425 and the one for boxes 133,636; plain branches have 20,817 and 198,916. All
    layers start as torch starts linear layers, so that probabilities of classes start at about 0.5.

    Args:
        bbox_coder: config of the coder between anchors and boxes, mmdet's ``DeltaXYWHBBoxCoder``.
        loss_cls, loss_bbox: configs of the losses. Their sums are divided by the number of matched
            queries.
        num_classes: ``K``.
        in_channels: ``C``.
        strides: of the ``L`` levels.
        num_layers: of the decoder.
        ffn_channels: hidden channels of the decoder's feed-forward layers.
        anchor_code: add :class:`AnchorCode` to the queries in the attentions.
        branches: ``'residual'``: :class:`ResidualBranch` for classes and for boxes; or ``'plain'``
            as in FQDetV2: one linear layer for classes, four for boxes.
        soft_labels: the target of a class is the overlap of predicted and true box, and 1 for no
            object, as ``QualityFocalLoss`` takes them.
        reg_decoded_bbox: ``loss_bbox`` compares boxes instead of deltas, as in mmdet.

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
        self.classify: nn.Module = (
            ResidualBranch(in_channels, outputs) if branches == 'residual' else
            nn.Linear(in_channels, outputs))
        self.regress: nn.Module = (
            ResidualBranch(in_channels, 4) if branches == 'residual' else
            plain_branch(in_channels, 4))

    def forward(self, x: Sequence[Tensor], proposals: InstanceList, metas: list[dict]) -> Decoded:
        """Decode the proposals of ``FQDetRPNHead``.

        Args:
            x: ``L`` maps ``[B, C, H, W]``.
            proposals: for each image ``bboxes`` and ``features``, equally many.
            metas: for each image ``img_shape``.
        """
        anchors = torch.stack([p.bboxes for p in proposals])
        queries = torch.stack([p.features for p in proposals])
        shapes = [size_of(f) for f in x]
        memory = dict(  # what the queries attend to
            value=torch.cat([f.flatten(2).transpose(1, 2) for f in x], 1),  # [B, P, C]
            reference_points=anchor_frames(anchors, shapes, self.strides),
            spatial_shapes=torch.tensor(shapes, device=anchors.device),
            level_start_index=torch.tensor(
                starts([h * w for h, w in shapes]), device=anchors.device))
        code = None
        if self.code is not None:
            size = anchors.new_tensor([tuple(m['img_shape'][1::-1]) * 2 for m in metas])
            code = self.code(bbox_xyxy_to_cxcywh(anchors) / size[:, None])
        for layer in self.decoder:
            queries = layer(queries, query_pos=code, **memory)
        return Decoded(queries, at_least_float32(self.classify(queries)),
                       at_least_float32(self.regress(queries)), anchors)

    def boxes(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Apply deltas ``[N, 4]`` to anchors ``[N, 4]``; boxes may reach beyond the image."""
        return self.bbox_coder.decode(anchors, deltas, wh_ratio_clip=SIDE_CHANGE)

    def loss(self, decoded: Decoded, matched: Tensor, gt_instances: InstanceList
             ) -> tuple[dict[str, Tensor], list[Matched], Tensor]:
        """Losses of classes and boxes.

        Args:
            decoded: of :meth:`forward`.
            matched: int64 ``[B, Q]``, number of each query's object in its image, -1 for none.
            gt_instances: for each image ``bboxes`` and ``labels``.

        Returns:
            ``loss_cls`` and ``loss_bbox``, the matched queries of each image, and the number that
            the losses were divided by.
        """
        image, query = (matched >= 0).nonzero(as_tuple=True)
        factor = mean_positives(matched >= 0)
        first = torch.tensor(starts([len(gt) for gt in gt_instances]), device=image.device)
        objects = matched[image, query]  # [N], counted within the image
        gt_index = first[image] + objects  # counted through all images
        labels = torch.cat([gt.labels for gt in gt_instances])[gt_index]
        boxes = torch.cat([gt.bboxes for gt in gt_instances]).to(decoded.anchors)[gt_index]
        anchors, deltas = decoded.anchors[image, query], decoded.deltas[image, query]  # [N, 4]
        predicted = self.boxes(anchors, deltas)
        classes = torch.full_like(matched, self.num_classes)  # no object
        classes[image, query] = labels
        target: Tensor | tuple[Tensor, Tensor] = classes.flatten()
        if self.soft_labels:
            quality = torch.ones_like(decoded.deltas[..., 0])  # [B, Q]
            quality[image, query] = bbox_overlaps(
                predicted.detach(), boxes, is_aligned=True).clamp(min=0)
            target = classes.flatten(), quality.flatten()
        compared = (predicted, boxes) if self.reg_decoded_bbox else (
            deltas, self.bbox_coder.encode(anchors, boxes))
        losses = dict(
            loss_cls=self.loss_cls(decoded.logits.flatten(0, 1), target, avg_factor=factor),
            loss_bbox=self.loss_bbox(*compared, avg_factor=factor))
        counts = (matched >= 0).sum(1).tolist()
        return losses, [Matched(*parts) for parts in zip(
            query.split(counts), objects.split(counts), labels.split(counts),
            predicted.detach().split(counts), strict=True)], factor

    def predict(self, decoded: Decoded, cfg: ConfigDict) -> InstanceList:
        """Detections of each image by :func:`detect`.

        Boxes are in pixels of the input and not clipped to the image.
        """
        scores = decoded.logits[..., :self.num_classes].sigmoid()
        return [detect(score, self.boxes(anchors, deltas), cfg) for score, anchors, deltas in zip(
            scores, decoded.anchors, decoded.deltas, strict=True)]
