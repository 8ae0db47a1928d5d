"""The segmentor that SparseRefine refines, asked about small images."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor

from mmsparse.hosts import warn_of_probabilities
from mmsparse.preprocessing import FLIPS, batch_metas


def class_scores(segmentor: BaseSegmentor, images: Tensor, flips: Sequence[str] = ()) -> Tensor:
    """A segmentor's scores of every class.

    Args:
        images: normalized, ``[B, 3, h, w]``.
        flips: names of :data:`~mmsparse.preprocessing.FLIPS`; the scores are the mean over the
            images and these views of them.

    Returns:
        ``[B, K, h, w]``; of a head with one sigmoid channel ``z`` the two of ``(0, z)``.

    Raises:
        ValueError: the scores hold NaN.
    """
    scores = scores_of_view(segmentor, images)
    for flip in flips:
        dims = FLIPS[flip]
        scores = scores + scores_of_view(segmentor, images.flip(dims)).flip(dims)
    return scores / (1 + len(flips)) if flips else scores


def scores_of_view(segmentor: BaseSegmentor, images: Tensor) -> Tensor:
    """:func:`class_scores` without flips."""
    # Heads resize to the size in the metas, so these must speak of the small image.
    scores = segmentor.inference(images, batch_metas(images))
    # A graph that is exported cannot look at values. The sum alone: also of two infinities.
    if not torch.compiler.is_exporting() and scores.sum().isnan() and scores.isnan().any():
        raise ValueError('the low-resolution segmentor returned NaN logits; check its checkpoint '
                         'and the normalization in data_preprocessor')
    warn_of_probabilities(segmentor, scores, 'model.probabilities')
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores
