"""Test-time augmentation of segmentors. Letters: ``K`` classes, ``H, W`` size of the original."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors import SegTTAModel as StockTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.hosts import gives_probabilities, last_head, warn_of_probabilities
from mmsparse.registry import MODELS
from mmsparse.sparse.upsampled import classes_of


@MODELS.register_module()
class SegTTAModel(StockTTAModel):
    """mmseg's ``SegTTAModel`` for every head: classes of the mean probability over the views.

    mmseg's takes whatever a segmentor stores in ``seg_logits`` for logits. Of a head with one
    sigmoid channel these are probabilities already, of MaskFormer's and Mask2Former's heads scores
    between 0 and 1: they are averaged as they are.

    A merged sample holds ``pred_sem_seg``, the labels and the metainfo of its first view. What
    else a view predicts (logits, the selected pixels) has no mean, and no single view's stands in.

    Args:
        module: the segmentor or its config.
        probabilities: its scores are probabilities, not logits; ``None`` (default) knows it of
            mmseg's heads. Only of mmseg's segmentors: those of this package give logits.
        data_preprocessor: as in mmengine.

    Raises:
        ValueError: at the first image, if the segmentor predicts no ``seg_logits``.
    """

    def __init__(self, module: dict | nn.Module, probabilities: bool | None = None,
                 data_preprocessor: dict | nn.Module | None = None) -> None:
        super().__init__(module, data_preprocessor)
        self.probabilities = probabilities

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]
                    ) -> list[SegDataSample]:
        """One sample per image from its views, which lie in the geometry of the original."""
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[SegDataSample]) -> SegDataSample:
        for view in views:
            if 'seg_logits' not in view:
                raise ValueError(
                    f'{type(self.module).__name__} predicts classes without scores '
                    '(seg_logits), which test-time augmentation cannot average')
        mean = torch.stack([self._probabilities(view.seg_logits.data) for view in views]).mean(0)
        if len(mean) == 1:
            classes = mean > last_head(self.module).threshold
        else:
            classes = classes_of(mean[None])
        merged = SegDataSample(metainfo=views[0].metainfo)
        labels = {name: views[0].get(name) for name in views[0].keys() if name.startswith('gt_')}
        merged.set_data(labels | dict(pred_sem_seg=PixelData(data=classes.long())))
        return merged

    def _probabilities(self, scores: Tensor) -> Tensor:
        """Of ``seg_logits`` ``[K or 1, H, W]``, float32."""
        if len(scores) == 1:
            return scores.float()
        if isinstance(self.module, EncoderDecoder):
            if gives_probabilities(self.module, self.probabilities):
                return scores.float()
            warn_of_probabilities(self.module, scores[None], 'tta_model.probabilities')
        return scores.float().softmax(0)
