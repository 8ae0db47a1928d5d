"""Low-resolution class scores, read through an augmentation.

Letters: ``B`` images, ``K`` classes, ``H, W`` full size, ``h, w`` low-resolution size, ``N`` rows.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.preprocessing import stack_padded
from mmsparse.sizes import size_of
from mmsparse.sparse import UpsampledLogits


class IndexedLogits(UpsampledLogits):
    """Low-resolution logits of clean images, read through their augmentation.

    Scaling, cropping and flipping the logits by nearest neighbor is the same as doing it to the
    numbers of their pixels, which costs one channel and not ``K``.

    Args:
        scores: logits ``[B, K, h, w]`` of the clean images.
        index: int64 ``[B, H, W]``: which of the ``h * w`` pixels, in raster order, an augmented
            pixel came from; negative on padding, where any logits stand.
        threshold: of :func:`classes_of`.
    """

    def __init__(self, scores: Tensor, index: Tensor, *, threshold: float | None = None) -> None:
        super().__init__(scores, size_of(index), mode='nearest', threshold=threshold)
        self.inside = index >= 0
        self._index = index.clamp(min=0)

    @classmethod
    def of_clean_images(cls, data_samples: Sequence[SegDataSample], inputs: Tensor,
                        segment: Callable[[Tensor], Tensor], *, num_classes: int,
                        threshold: float | None) -> IndexedLogits:
        """Logits of the clean images that augmented ones were made of.

        Args:
            data_samples: with ``low_res_index``, and ``low_res_logits`` or ``low_res_img``.
            inputs: augmented images ``[B, 3, H, W]``.
            segment: clean images ``[B, 3, h, w]`` to logits; called where none are stored.
            num_classes: ``K``.

        Raises:
            ValueError: stored logits have another number of classes.
        """
        if 'low_res_logits' in data_samples[0]:
            logits = torch.stack([s.low_res_logits.data for s in data_samples])
            if logits.shape[1] != num_classes:
                raise ValueError(f'stored low-resolution logits have {logits.shape[1]} classes, '
                                 f'the segmentor predicts {num_classes}')
        else:
            logits = segment(torch.stack([s.low_res_img.data for s in data_samples]))
        index = stack_padded([s.low_res_index.data[0] for s in data_samples], inputs, -1)
        return cls(logits, index, threshold=threshold)

    def expand(self, low: Tensor) -> Tensor:
        """Copy a low-resolution map ``[B, h, w]`` onto ``[B, H, W]``."""
        return low.flatten(1).gather(1, self._index.flatten(1)).view_as(self._index)

    def at(self, indices: Tensor) -> Tensor:
        """Logits ``[N, K]`` of single pixels, as :meth:`UpsampledLogits.at`."""
        b, y, x = indices.long().unbind(1)
        return self.scores.flatten(2)[b, :, self._index[b, y, x]]

    def full(self) -> Tensor:
        """The full-size logits, ``[B, K, H, W]``."""
        index = self._index.flatten(1)[:, None].expand(-1, self.scores.shape[1], -1)
        return self.scores.flatten(2).gather(2, index).unflatten(2, self.size)
