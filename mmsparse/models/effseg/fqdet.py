"""FQDet as an RoI head of mmdet, its masks read with the decoder's queries.

Source: EffSeg (2023), sec. 4, and Picron et al., "FQDet: Fast-converging Query-based Detector"
(arXiv 2210.02318). Letters: ``B`` images, ``Q`` queries, ``R`` RoIs, ``C`` channels.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from mmengine.config import ConfigDict
from torch import Tensor

from mmsparse.registry import MODELS

from .roi_head import QueryMasks


@MODELS.register_module()
class FQDetRoIHead(QueryMasks, BaseRoIHead):
    """FQDet's second stage, behind ``FQDetRPNHead``, for any two-stage detector of mmdet.

    Masks are trained on the predicted boxes of all queries that are matched with an object, up to
    15 for one object. At test, a query may be detected as several classes; its mask is computed
    once. ``query_inds`` of the detections is the number of their query.

    Args:
        **kwargs: of ``BaseRoIHead``: ``bbox_head`` is ``FQDetBBoxHead``; ``mask_head`` is one of
            :mod:`mmsparse.models.effseg`, or there is none.
    """

    def init_bbox_head(self, bbox_roi_extractor: None, bbox_head: dict) -> None:
        """Build the box head, which reads no RoI features and needs no extractor."""
        self.bbox_head = MODELS.build(bbox_head)

    def init_assigner_sampler(self) -> None:
        """Build nothing: ``FQDetRPNHead`` matches queries with objects."""

    def loss(self, x: Sequence[Tensor], rpn_results_list: InstanceList, batch_data_samples: list
             ) -> dict[str, Tensor]:
        """Losses of classes, boxes and masks, all divided by the number of matched queries."""
        gt_instances = [sample.gt_instances for sample in batch_data_samples]
        decoded = self.bbox_head(x, rpn_results_list, [s.metainfo for s in batch_data_samples])
        losses, matches, factor = self.bbox_head.loss(
            decoded, torch.stack([r.matched for r in rpn_results_list]), gt_instances)
        if self.with_mask:
            queries = torch.cat([
                feats[match.pos_inds]
                for feats, match in zip(decoded.queries, matches, strict=True)])
            mask_losses = self._mask_losses(
                x, [m.pos_priors for m in matches], queries, matches, gt_instances)
            # These are means over the RoIs of this process. Times their number and divided by
            # ``factor``, the mean number of all processes, every RoI weighs the same.
            share = len(queries) / factor
            losses.update({name: value * share if 'loss' in name else value
                           for name, value in mask_losses.items()})
        return losses

    def predict_bbox(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     rpn_results_list: InstanceList, rcnn_test_cfg: ConfigDict,
                     rescale: bool = False) -> InstanceList:
        """Detections; if there is a mask head, with their ``queries`` for :meth:`predict_mask`."""
        decoded = self.bbox_head(x, rpn_results_list, batch_img_metas)
        results = self.bbox_head.predict(decoded, rcnn_test_cfg)
        for result, queries, meta in zip(results, decoded.queries, batch_img_metas, strict=True):
            if self.with_mask:
                result.queries = queries[result.query_inds]
            if rescale:
                factor = result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
                result.bboxes = result.bboxes / factor
        return results

    def predict_mask(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     results_list: InstanceList, rescale: bool = False) -> InstanceList:
        """Add ``masks`` and ``mask_scores`` to the detections of :meth:`predict_bbox`."""
        queries = [result.pop('queries') for result in results_list]
        # a distinct number for every query of the batch, ascending from image to image
        mask_ids = torch.cat([(i << 32) + r.query_inds for i, r in enumerate(results_list)])
        return self._predict(x, batch_img_metas, results_list, rescale, queries, mask_ids)

    def forward(self, x: Sequence[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: list) -> tuple:
        """Class logits, box deltas and mask logits of all queries, without suppression."""
        decoded = self.bbox_head(x, rpn_results_list, [s.metainfo for s in batch_data_samples])
        boxes = self.bbox_head.boxes(
            decoded.anchors.flatten(0, 1), decoded.deltas.flatten(0, 1)).view_as(decoded.anchors)
        if not self.with_mask:
            return decoded.logits, decoded.deltas
        labels = decoded.logits[..., :self.bbox_head.num_classes].argmax(-1).flatten()
        rois = bbox2roi(list(boxes))
        return decoded.logits, decoded.deltas, self.mask_logits(
            x, rois, labels, decoded.queries.flatten(0, 1),
            torch.arange(len(rois), device=rois.device))
