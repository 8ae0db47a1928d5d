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
    """Second stage of FQDet, behind ``FQDetSelector``, in any two-stage detector of mmdet.

    Masks are trained on the predicted boxes of all matched queries, up to 15 for an object, and
    predicted once for each query that is found, whatever the number of its classes. Detections keep
    the number of their query, ``query_inds``.

    Args:
        **kwargs: of ``BaseRoIHead``: ``bbox_head`` is ``FQDetBBoxHead``; ``mask_head`` is one of
            :mod:`mmsparse.models.effseg`, or there is none.
    """

    def init_bbox_head(self, bbox_roi_extractor: None, bbox_head: dict) -> None:
        """Build it; it reads no RoI features."""
        self.bbox_head = MODELS.build(bbox_head)

    def init_assigner_sampler(self) -> None:
        """Nothing: the selector matches."""

    def loss(self, x: Sequence[Tensor], rpn_results_list: InstanceList, batch_data_samples: list
             ) -> dict[str, Tensor]:
        """Losses of classes, boxes and masks, all divided by the number of matched queries."""
        truth = [sample.gt_instances for sample in batch_data_samples]
        found = self.bbox_head(x, rpn_results_list, [s.metainfo for s in batch_data_samples])
        losses, matches, factor = self.bbox_head.loss(
            found, torch.stack([r.matched for r in rpn_results_list]), truth)
        if self.with_mask:
            queries = torch.cat([
                own[match.pos_inds] for own, match in zip(found.queries, matches, strict=True)])
            masks = self._loss_of(x, [m.pos_priors for m in matches], queries, matches, truth)
            # means over RoIs; other processes may have more of them
            share = len(queries) / factor
            losses.update({
                name: value * share if 'loss' in name else value for name, value in masks.items()})
        return losses

    def predict_bbox(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     rpn_results_list: InstanceList, rcnn_test_cfg: ConfigDict,
                     rescale: bool = False) -> InstanceList:
        """Detections, with their ``queries`` if masks follow."""
        found = self.bbox_head(x, rpn_results_list, batch_img_metas)
        results = self.bbox_head.predict(found, rcnn_test_cfg)
        for result, queries, meta in zip(results, found.queries, batch_img_metas, strict=True):
            if self.with_mask:
                result.queries = queries[result.query_inds]
            if rescale:
                factor = result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
                result.bboxes = result.bboxes / factor
        return results

    def predict_mask(self, x: Sequence[Tensor], batch_img_metas: list[dict],
                     results_list: InstanceList, rescale: bool = False) -> InstanceList:
        """Add masks to detections."""
        queries = [result.pop('queries') for result in results_list]
        # one number for each query of all images, images in order
        same = torch.cat([(i << 32) + r.query_inds for i, r in enumerate(results_list)])
        return self._predict(x, batch_img_metas, results_list, rescale, queries, same)

    def forward(self, x: Sequence[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: list) -> tuple:
        """Class logits, deltas and mask logits of all queries, without decoding."""
        found = self.bbox_head(x, rpn_results_list, [s.metainfo for s in batch_data_samples])
        boxes = self.bbox_head.boxes(
            found.anchors.flatten(0, 1), found.deltas.flatten(0, 1)).view_as(found.anchors)
        if not self.with_mask:
            return found.logits, found.deltas
        labels = found.logits[..., :self.bbox_head.num_classes].argmax(-1).flatten()
        rois = bbox2roi(list(boxes))
        return found.logits, found.deltas, self.mask_logits(
            x, rois, labels, found.queries.flatten(0, 1),
            torch.arange(len(rois), device=rois.device))
