"""Low-resolution class scores, read through an augmentation.

Letters: ``B`` images, ``K`` classes, ``H, W`` full size, ``h, w`` low-resolution size, ``N`` rows.
"""
from __future__ import annotations

from torch import Tensor

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
        super().__init__(scores, tuple(index.shape[1:]), mode='nearest', threshold=threshold)
        self.inside = index >= 0
        self._index = index.clamp(min=0)

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
