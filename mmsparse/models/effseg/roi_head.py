"""mmdet's RoI heads with mask heads that read a query of each object beside its RoI feature.

A query is a vector in which the detector describes one object. Any mask head of this folder fits
any of the RoI heads. Source: EffSeg (2023), sec. 3 and 4. Letters: ``B`` images, ``R`` RoIs, ``C``
channels of the pyramid, ``Q`` width of a query, ``h, w`` size of a mask.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads import CascadeRoIHead, ConvFCBBoxHead, SparseRoIHead, StandardRoIHead
from mmdet.models.utils import empty_instances
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .paste import paste_masks
from .queries import at_least_float32
from .rois import RoIMasks, safe_rois

TRAIN_BOXES = ('proposal', 'refined')


def shared_features(bbox_head: ConvFCBBoxHead, roi_feats: Tensor) -> Tensor:
    """Output of the layers that a box head of mmdet has before it branches to classes and boxes.

    Args:
        bbox_head: of a detector of mmdet.
        roi_feats: ``[R, C, 7, 7]``.

    Returns:
        ``[R, Q]``.
    """
    x = roi_feats
    for conv in bbox_head.shared_convs:
        x = conv(x)
    x = (bbox_head.avg_pool(x) if bbox_head.with_avg_pool else x).flatten(1)
    for layer in bbox_head.shared_fcs:
        x = F.relu(layer(x))
    return x


def check_shared(bbox_head: nn.Module) -> None:
    """Refuse a box head that :func:`shared_features` does not work with.

    Raises:
        ValueError: the box head shares no fully connected layers.
    """
    if not getattr(bbox_head, 'num_shared_fcs', 0):
        raise ValueError(
            'roi_head.bbox_head must share fully connected layers between its branches, as '
            f'Shared2FCBBoxHead does: their output is the query; got {type(bbox_head).__name__}')


class QueryMasks:
    """The mask branch of an RoI head. Subclasses differ by where their queries come from.

    ``test_cfg`` takes, beside mmdet's ``mask_thr_binary``:

    - ``mask_scoring`` (default True): give each instance ``mask_scores``, its class score times the
      mean probability within its mask (eq. 3). ``CocoMetric`` ranks masks by them, and boxes by
      ``scores``.
    - ``encode_masks`` (default False): give ``masks`` as COCO's run-length codes instead of one
      tensor ``[R, H, W]``, which for hundreds of instances on large images takes gigabytes.
    """

    test_cfg: ConfigDict
    stage_loss_weights: Sequence[float]  # of a cascade

    def queries(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Compute the queries ``[R, Q]`` of RoIs ``[R, 5]``, where they do not come with these."""
        raise NotImplementedError

    def init_mask_head(self, mask_roi_extractor: dict, mask_head: dict) -> None:
        """Build the mask head and its extractor."""
        if mask_roi_extractor is None:
            raise ValueError('roi_head.mask_roi_extractor is needed for masks, got None')
        self.mask_roi_extractor = MODELS.build(mask_roi_extractor)
        self.share_roi_extractor = False
        self.mask_head = MODELS.build(mask_head)

    def roi_feats(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Features of RoIs ``[R, 5]`` for the mask head, ``[R, C, 14, 14]``, float32 at least."""
        # Half precision cannot tell the pixels of a large image apart (between 2048 and 4096 it has
        # every other integer alone), and the CPU's RoIAlign takes float32 alone.
        x = [at_least_float32(f) for f in x[:self.mask_roi_extractor.num_inputs]]
        return self.mask_roi_extractor(x, rois)

    def _mask_losses(self, x: Sequence[Tensor], boxes: list[Tensor], queries: Tensor | None,
                     sampling_results: list, gt_instances: InstanceList) -> dict[str, Tensor]:
        """Losses of the mask head.

        Args:
            x: the pyramid.
            boxes: for each image those that masks are trained on, ``[n, 4]``.
            queries: of the boxes, ``[R, Q]``; ``None`` to compute them by ``self.queries``.
            sampling_results: for each image which objects its boxes belong to, and their classes.
            gt_instances: for each image ``masks``.
        """
        rois = safe_rois(bbox2roi(boxes))
        gt_masks = RoIMasks(
            [gt.masks.to_tensor(torch.float32, rois.device) for gt in gt_instances], rois,
            torch.cat([result.pos_assigned_gt_inds for result in sampling_results]),
            torch.cat([result.pos_gt_labels for result in sampling_results]))
        if queries is None:
            queries = self.queries(x, rois)
        return self.mask_head.loss(x, self.roi_feats(x, rois), queries, gt_masks)

    def _of_last_stage(self, losses: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Wrap mask losses as a cascade's ``mask_loss`` does, so that they keep their weights.

        mmdet's cascades multiply the losses of a stage by the stage's weight. There is one mask
        head, with weights of its own: dividing by the last stage's weight cancels mmdet's.
        """
        return dict(loss_mask={
            name: loss / self.stage_loss_weights[-1] for name, loss in losses.items()})

    def mask_logits(self, x: Sequence[Tensor], rois: Tensor, labels: Tensor,
                    queries: Tensor | None = None, mask_ids: Tensor | None = None) -> Tensor:
        """Mask logits of RoIs.

        One box may be detected as several classes. If masks do not depend on the class, each
        distinct mask is computed once and its logits are repeated.

        Args:
            x: the pyramid.
            rois: ``[R, 5]``, image by image.
            labels: int64 ``[R]``, classes.
            queries: ``[R, Q]``; ``None`` to compute them by ``self.queries``.
            mask_ids: int64 ``[R]``, equal for RoIs that have the same mask, and larger in later
                images. ``None``: RoIs with equal coordinates have the same mask.

        Returns:
            ``[R, 1, h, w]``.
        """
        rois, inverse = safe_rois(rois), None
        if self.mask_head.class_agnostic:
            distinct, inverse = (rois if mask_ids is None else mask_ids).unique(
                dim=0, return_inverse=True)
            # one RoI of each distinct mask, whichever
            chosen = inverse.new_empty(len(distinct)).scatter_(
                0, inverse, torch.arange(len(rois), device=rois.device))
            rois = rois[chosen]
            queries = None if queries is None else queries[chosen]
        if queries is None:
            queries = self.queries(x, rois)
        logits = self.mask_head(x, self.roi_feats(x, rois), rois, queries, labels)
        return logits if inverse is None else logits[inverse]

    def predict_mask(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     results_list: InstanceList, rescale: bool = False) -> InstanceList:
        """Add ``masks`` and ``mask_scores`` to detections."""
        return self._predict(x, batch_img_metas, results_list, rescale)

    def _predict(self, x: Sequence[Tensor], metas: list[dict], results: InstanceList,
                 rescale: bool, queries: list[Tensor] | None = None,
                 mask_ids: Tensor | None = None) -> InstanceList:
        """Add ``masks`` and ``mask_scores`` to the results.

        Args:
            x: the pyramid.
            metas: for each image ``ori_shape`` and ``scale_factor``.
            results: for each image ``bboxes``, ``scores`` and ``labels``.
            rescale: scale boxes and masks to the original image.
            queries: for each image those of its results.
            mask_ids: of :meth:`mask_logits`.
        """
        cfg, counts = self.test_cfg, [len(r) for r in results]
        encode = cfg.get('encode_masks', False)
        if not sum(counts):
            results = empty_instances(metas, x[0].device, task_type='mask',
                                      instance_results=results,
                                      mask_thr_binary=cfg.mask_thr_binary)
            for result in results if encode else ():
                del result.masks
                result.masks = []
            return results
        logits = self.mask_logits(
            x, bbox2roi([r.bboxes for r in results]), torch.cat([r.labels for r in results]),
            torch.cat(queries) if queries else None, mask_ids)
        for result, meta, image_logits in zip(results, metas, logits.split(counts), strict=True):
            factor = result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
            size = tuple(meta['ori_shape'][:2])
            if rescale:
                result.bboxes = result.bboxes / factor
            else:
                size = tuple(round(n * f) for n, f in zip(
                    size, reversed(meta['scale_factor']), strict=True))
            result.masks, confidence = paste_masks(
                image_logits.sigmoid(), result.bboxes, size, threshold=cfg.mask_thr_binary,
                encode=encode)
            if cfg.get('mask_scoring', True):
                result.mask_scores = result.scores * confidence.to(result.scores)
        return results


@MODELS.register_module()
class EffSegRoIHead(QueryMasks, StandardRoIHead):
    """Mask R-CNN's RoI head. The query of a box is the feature that the box head branches from.

    The mask branch computes queries of its own, for the boxes whose masks it predicts: at test
    these are the final boxes, which the box head has not read features of. Training does the same.

    Args:
        train_boxes: boxes that masks are trained on: ``'proposal'``, the positive proposals, as in
            Mask R-CNN, or ``'refined'``, the same after the box head's regression.
        **kwargs: of ``StandardRoIHead``; ``mask_head`` is one of :mod:`mmsparse.models.effseg`.

    Raises:
        ValueError: ``train_boxes`` is unknown, or the box head has no shared layers.
    """

    def __init__(self, *, train_boxes: str = 'proposal', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if train_boxes not in TRAIN_BOXES:
            raise ValueError(
                f'EffSegRoIHead.train_boxes must be one of {TRAIN_BOXES}, got {train_boxes!r}')
        check_shared(self.bbox_head)
        self.train_boxes = train_boxes

    def queries(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Compute the queries ``[R, Q]`` of RoIs ``[R, 5]``."""
        extractor = self.bbox_roi_extractor
        return shared_features(self.bbox_head, extractor(x[:extractor.num_inputs], rois))

    def mask_loss(self, x: Sequence[Tensor], sampling_results: list, bbox_feats: Tensor,
                  batch_gt_instances: InstanceList) -> dict:
        """Losses of the positive boxes, under ``'loss_mask'``."""
        boxes = [result.pos_priors for result in sampling_results]
        if self.train_boxes == 'refined':
            boxes = self._refined(x, boxes, sampling_results)
        return dict(loss_mask=self._mask_losses(
            x, boxes, None, sampling_results, batch_gt_instances))

    @torch.no_grad()
    def _refined(self, x: Sequence[Tensor], boxes: list[Tensor], sampling_results: list
                 ) -> list[Tensor]:
        """Boxes of each image after the box head's regression, without gradients."""
        head, rois = self.bbox_head, safe_rois(bbox2roi(boxes))
        deltas = head.fc_reg(self.queries(x, rois)).split([len(b) for b in boxes])
        meta = dict(img_shape=None)  # mmdet's coder clips to this; masks are trained unclipped
        return [head.regress_by_class(b, r.pos_gt_labels, d, meta) if len(b) else b
                for b, r, d in zip(boxes, sampling_results, deltas, strict=True)]

    def forward(self, x: Sequence[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: list | None = None) -> tuple:
        """Class scores, box deltas and mask logits of the first 100 proposals, without decoding."""
        rois = bbox2roi([r.bboxes for r in rpn_results_list])
        boxes = self._bbox_forward(x, rois)
        labels = boxes['cls_score'][:100, :-1].argmax(1)
        return boxes['cls_score'], boxes['bbox_pred'], self.mask_logits(x, rois[:100], labels)


@MODELS.register_module()
class EffSegCascadeRoIHead(QueryMasks, CascadeRoIHead):
    """Cascade R-CNN's RoI head with masks in the last stage alone.

    The query of a box is the feature that the last box head branches from.

    Args:
        **kwargs: of ``CascadeRoIHead``; ``mask_head`` is one of :mod:`mmsparse.models.effseg`.

    Raises:
        ValueError: the last box head has no shared layers.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_shared(self.bbox_head[-1])

    def queries(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Compute the queries ``[R, Q]`` of RoIs ``[R, 5]``."""
        extractor = self.bbox_roi_extractor[-1]
        return shared_features(self.bbox_head[-1], extractor(x[:extractor.num_inputs], rois))

    def mask_loss(self, stage: int, x: Sequence[Tensor], sampling_results: list,
                  batch_gt_instances: InstanceList) -> dict:
        """Losses of the last stage's positive boxes, under ``'loss_mask'``."""
        if stage + 1 < self.num_stages:
            return dict(loss_mask={})
        boxes = [result.pos_priors for result in sampling_results]
        return self._of_last_stage(
            self._mask_losses(x, boxes, None, sampling_results, batch_gt_instances))

    def forward(self, x: Sequence[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: list) -> tuple:
        """Class scores, box deltas and mask logits of all proposals, without decoding."""
        counts = [len(r) for r in rpn_results_list]
        rois, scores, deltas = self._refine_roi(
            x, bbox2roi([r.bboxes for r in rpn_results_list]),
            [sample.metainfo for sample in batch_data_samples], counts)
        labels = torch.cat([s[:, :-1].argmax(1) for s in scores])
        return scores, deltas, self.mask_logits(x, torch.cat(rois), labels)


@MODELS.register_module()
class EffSegSparseRoIHead(QueryMasks, SparseRoIHead):
    """RoI head of Sparse R-CNN and QueryInst with masks in the last stage alone.

    The query is the object feature after the last stage's attention. Masks are computed for those
    queries alone that are detections in the end.

    Args:
        **kwargs: of ``SparseRoIHead``; ``mask_head`` is one of :mod:`mmsparse.models.effseg`.
    """

    def mask_loss(self, stage: int, x: Sequence[Tensor], bbox_results: dict,
                  batch_gt_instances: InstanceList, rcnn_train_cfg: dict) -> dict:
        """Losses of the last stage's matched queries, under ``'loss_mask'``."""
        if stage + 1 < self.num_stages:
            return dict(loss_mask={})
        sampling_results = bbox_results['sampling_results']
        queries = torch.cat([feats[result.pos_inds] for feats, result in zip(
            bbox_results['attn_feats'], sampling_results, strict=True)])
        boxes = [result.pos_priors for result in sampling_results]
        return self._of_last_stage(
            self._mask_losses(x, boxes, queries, sampling_results, batch_gt_instances))

    def predict_mask(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     results_list: InstanceList, rescale: bool = False) -> InstanceList:
        """Add ``masks`` and ``mask_scores`` to detections."""
        queries, classes = [], self.bbox_head[-1].num_classes
        for result in results_list if self.with_mask else ():
            result.pop('proposals', None)
            kept = result.pop('topk_inds', None)  # query times classes plus class
            feats = result.pop('attn_feats', None)
            queries.append(x[0].new_empty(0, 0) if kept is None else feats[kept // classes])
        return self._predict(x, batch_img_metas, results_list, rescale, queries)

    def forward(self, x: Sequence[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: list) -> tuple:
        """Class scores, boxes and mask logits of all queries, without decoding."""
        metas = [sample.metainfo for sample in batch_data_samples]
        feats = torch.cat([result.pop('features')[None] for result in rpn_results_list])
        boxes = [result.bboxes for result in rpn_results_list]
        for stage in range(self.num_stages):
            outputs = self._bbox_forward(stage, x, bbox2roi(boxes), feats, metas)
            feats, boxes = outputs['object_feats'], outputs['detached_proposals']
        labels = outputs['cls_score'].flatten(0, 1).argmax(1)
        return outputs['cls_score'], boxes, self.mask_logits(
            x, bbox2roi(boxes), labels, outputs['attn_feats'].flatten(0, 1))
