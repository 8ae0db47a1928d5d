"""Static matching: which object each anchor learns follows from overlaps, not from predictions.

Source: Picron et al., "FQDet: Fast-converging Query-based Detector" (arXiv 2210.02318), sec. 3.
Letters: ``A`` anchors, the same in every image, ``G`` objects of all images together, ``B`` images,
``Q`` queries of an image, ``K`` candidates of an object.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor

# Number of objects whose overlaps with all anchors are held in one tensor: with the 670,000 anchors
# of an image of 800x1110 these are 43 MB.
OBJECTS_AT_ONCE = 16


class Candidates(NamedTuple):
    """For each object the anchors that overlap it most.

    Attributes:
        anchors: int64 ``[G, K]``, numbers of the anchors, the one with the largest overlap first.
        overlaps: float32 ``[G, K]``, their intersection over union with the object. An anchor with
            0 is not a candidate.
        image: int64 ``[G]``, image that the object is in.
    """

    anchors: Tensor
    overlaps: Tensor
    image: Tensor


def best_anchors(anchors: Tensor, boxes: list[Tensor], count: int) -> Candidates:
    """Find the candidates of every object.

    Args:
        anchors: float32 ``[A, 4]``, x1, y1, x2, y2, of all levels.
        boxes: for each of ``B`` images those of its objects, ``[objects, 4]``.
        count: ``K``, at most ``A``.
    """
    joined = torch.cat([anchors.new_zeros(0, 4), *(b.to(anchors) for b in boxes)])
    count = min(count, len(anchors))
    overlaps, best = [anchors.new_zeros(0, count)], [joined.new_zeros(0, count).long()]
    for part in joined.split(OBJECTS_AT_ONCE) if len(joined) else ():
        values, indices = bbox_overlaps(part, anchors).topk(count, 1)
        overlaps.append(values)
        best.append(indices)
    image = torch.repeat_interleave(
        torch.arange(len(boxes)), torch.tensor([len(b) for b in boxes])).to(anchors.device)
    return Candidates(torch.cat(best), torch.cat(overlaps), image)


def selection_targets(candidates: Candidates, images: int, anchors: int, count: int) -> Tensor:
    """Which anchors the first stage should learn to select.

    Args:
        candidates: of :func:`best_anchors`.
        images: ``B``.
        anchors: ``A``.
        count: number of the first candidates of each object that are to be selected.

    Returns:
        bool ``[B, A]``.
    """
    index = (candidates.image[:, None] * anchors + candidates.anchors)[:, :count]  # into [B A]
    hits = torch.zeros(images * anchors, device=index.device).index_add_(
        0, index.flatten(), (candidates.overlaps[:, :count] > 0).float().flatten())
    return hits.view(images, anchors) > 0


def match_queries(candidates: Candidates, selected: Tensor, anchors: int) -> Tensor:
    """Decide which object each query learns.

    It is the object that has the query's anchor among its candidates. Of several, it is the one
    for which that anchor ranks first; with equal ranks, the one that the anchor overlaps more. So
    an anchor that is the third candidate of one object and the first of another learns the latter,
    whatever the overlaps.

    Args:
        candidates: of :func:`best_anchors`.
        selected: int64 ``[B, Q]``, the queries' anchors, each at most once in an image.
        anchors: ``A``.

    Returns:
        int64 ``[B, Q]``: number of the object, counted through all images, -1 for none.
    """
    images, queries = selected.shape
    device = selected.device
    objects, count = candidates.anchors.shape
    if not objects:
        return selected.new_full((images, queries), -1)
    first = torch.arange(images, device=device)[:, None] * anchors
    query_of_anchor = selected.new_full((images * anchors,), -1)
    query_of_anchor[(first + selected).flatten()] = torch.arange(images * queries, device=device)
    query = query_of_anchor[candidates.image[:, None] * anchors + candidates.anchors]  # [G, K]
    # Rank first, then overlap, in one number: overlaps differ by 1 at most, ranks by 2 at least.
    # A third candidate of overlap 0.9 has 0.9 - 4 = -3.1, a second one of 0.3 has 0.3 - 2 = -1.7.
    rank = torch.arange(count, device=device)
    score = (candidates.overlaps.double() - 2.0 * rank).flatten()  # [G K]
    eligible = (query >= 0) & (candidates.overlaps > 0)
    # candidates that are not eligible compete for one more query, which is dropped in the end
    query = torch.where(eligible, query, images * queries).flatten()  # [G K]
    best = torch.full((images * queries + 1,), -torch.inf, dtype=torch.float64, device=device)
    best.scatter_reduce_(0, query, score, 'amax')
    number = torch.arange(objects, device=device).repeat_interleave(count)
    # of equal scores the first object; `objects` stands for none
    winner = torch.full_like(best, objects, dtype=torch.int64).scatter_reduce_(
        0, query, torch.where(score == best[query], number, objects), 'amin')[:-1]
    return torch.where(winner == objects, -1, winner).view(images, queries)


def mean_positives(positive: Tensor) -> Tensor:
    """The number that sums of losses are divided by: positives, mean over processes, 1 at least."""
    return reduce_mean(positive.sum().float()).clamp(min=1)
