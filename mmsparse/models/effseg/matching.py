"""Static matching: which anchors learn which object, settled by overlap before anything is learned.

Source: Picron et al., "FQDet: Fast-converging Query-based Detector" (arXiv 2210.02318), sec. 3.
Letters: ``A`` anchors of an image, ``G`` objects of all images, ``B`` images, ``Q`` queries, ``K``
candidates of an object.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor

# Objects that are compared with all anchors in one tensor: 16 times 670,000 floats are 43 MB.
AT_ONCE = 16


class Candidates(NamedTuple):
    """The anchors that overlap each object best, best first.

    Attributes:
        anchors: int64 ``[G, K]``.
        overlaps: float32 ``[G, K]``, intersection over union; 0 marks no candidate.
        image: int64 ``[G]``, image of each object.
    """

    anchors: Tensor
    overlaps: Tensor
    image: Tensor


def best_anchors(anchors: Tensor, boxes: list[Tensor], count: int) -> Candidates:
    """Candidates among anchors that all images share.

    Args:
        anchors: float32 ``[A, 4]``, x1, y1, x2, y2 of all levels.
        boxes: for each of ``B`` images ``[objects, 4]``.
        count: ``K``; ``A`` if that is less.
    """
    joined = torch.cat([anchors.new_zeros(0, 4), *(b.to(anchors) for b in boxes)])
    count = min(count, len(anchors))
    overlaps, best = [anchors.new_zeros(0, count)], [joined.new_zeros(0, count).long()]
    for part in joined.split(AT_ONCE) if len(joined) else ():
        values, indices = bbox_overlaps(part, anchors).topk(count, 1)
        overlaps.append(values)
        best.append(indices)
    image = torch.repeat_interleave(
        torch.arange(len(boxes)), torch.tensor([len(b) for b in boxes])).to(anchors.device)
    return Candidates(torch.cat(best), torch.cat(overlaps), image)


def selection_targets(found: Candidates, images: int, anchors: int, count: int) -> Tensor:
    """Which anchors should be selected.

    Args:
        found: of :func:`best_anchors`.
        images: ``B``.
        anchors: ``A``.
        count: candidates of each object that are positive.

    Returns:
        bool ``[B, A]``.
    """
    where = (found.image[:, None] * anchors + found.anchors)[:, :count]
    hits = torch.zeros(images * anchors, device=where.device).index_add_(
        0, where.flatten(), (found.overlaps[:, :count] > 0).float().flatten())
    return hits.view(images, anchors) > 0


def match_queries(found: Candidates, selected: Tensor, anchors: int) -> Tensor:
    """The object of each query.

    A query whose anchor is a candidate of several objects gets the one that ranks it best; of equal
    ranks the one that it overlaps more.

    Args:
        found: of :func:`best_anchors`.
        selected: int64 ``[B, Q]``, anchors behind the queries, each at most once in an image.
        anchors: ``A``.

    Returns:
        int64 ``[B, Q]``: number of the object in the order of all images, -1 for none.
    """
    images, queries = selected.shape
    device = selected.device
    objects, count = found.anchors.shape
    if not objects:
        return selected.new_full((images, queries), -1)
    first = torch.arange(images, device=device)[:, None] * anchors
    query = selected.new_full((images * anchors,), -1)
    query[(first + selected).flatten()] = torch.arange(images * queries, device=device)
    query = query[found.image[:, None] * anchors + found.anchors]  # [G, K]
    # one number for rank, then overlap: ranks differ by 2, overlaps by less
    rank = torch.arange(count, device=device)
    value = found.overlaps.double() - 2.0 * rank
    wanted = (query >= 0) & (found.overlaps > 0)
    # one more place for candidates that nobody selected
    place = torch.where(wanted, query, images * queries).flatten()
    best = torch.full((images * queries + 1,), -torch.inf, dtype=torch.float64, device=device)
    best.scatter_reduce_(0, place, value.flatten(), 'amax')
    number = torch.arange(objects, device=device)[:, None].expand_as(value).flatten()
    won = value.flatten() == best[place]
    # of equal values the first object
    winner = torch.full_like(best, objects, dtype=torch.int64).scatter_reduce_(
        0, place, torch.where(won, number, objects), 'amin')[:-1]
    return torch.where(winner == objects, -1, winner).view(images, queries)


def mean_positives(positive: Tensor) -> Tensor:
    """Number of positives, mean over the processes, 1 at least: what every loss is divided by."""
    return reduce_mean(positive.sum().float()).clamp(min=1)
