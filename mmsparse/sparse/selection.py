"""Which pixels are worth more compute: uncertainty and budgets, as functions on tensors.

Letters: ``B`` images, ``K`` classes, ``H, W`` size.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def logits_of(probabilities: Tensor) -> Tensor:
    """Probabilities that need not sum to one as logits: clipped at 1e-10, their logarithm.

    What SparseRefine's released code does with the scores of a Mask2Former; a softmax then
    renormalizes them.
    """
    return probabilities.clamp(min=1e-10).log()


def entropy(logits: Tensor, dim: int = 1) -> Tensor:
    r"""Entropy of the softmax, in nats.

    .. math:: E = -\sum_c p_c \ln \max(p_c, 10^{-5}), \qquad p = \mathrm{softmax}(logits)

    The clamp stands inside the logarithm only. The result lies in ``0 .. ln K`` (2.944 for the 19
    classes of Cityscapes). Always computed in float32: half precision cannot hold the clamp.
    Source: SparseRefine (ECCV 2024), sec. 3.2.

    Args:
        logits: any float dtype, classes along ``dim``: ``[B, K, H, W]``, ``[N, K]`` with dim 1.

    Returns:
        float32, ``logits`` without the dimension ``dim``.
    """
    return entropy_of_probabilities(logits.float().softmax(dim), dim)


def entropy_of_probabilities(p: Tensor, dim: int = 1) -> Tensor:
    """As :func:`entropy`, of the softmax itself, float32."""
    return -(p * p.clamp(min=1e-5).log_()).sum(dim)


def top_k_mask(score: Tensor, k: Tensor | int, most: int | None = None) -> Tensor:
    """The ``k`` highest-scoring pixels of every image, exactly ``k`` even among ties.

    Args:
        score: ``[B, H, W]``; ``-inf`` marks a pixel that may only be taken last.
        k: pixels per image, one int or int64 ``[B]``; more than ``H * W`` takes them all.
        most: no ``k`` is larger; by default the largest of them, which takes a look at values.

    Returns:
        bool ``[B, H, W]``.
    """
    flat = score.flatten(1)
    k = torch.as_tensor(k, device=score.device).expand(len(flat))
    most = min(int(k.max()) if most is None else most, flat.shape[1])
    best = flat.topk(most, dim=1).indices
    chosen = torch.arange(most, device=score.device) < k[:, None]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, chosen).view_as(score)


def limit_mask(mask: Tensor, score: Tensor, max_points: Tensor | int) -> Tensor:
    """Keep at most ``max_points`` active pixels per image, those of the highest score.

    Args:
        mask: bool ``[B, H, W]``.
        score: float ``[B, H, W]``.
        max_points: one int, or int64 ``[B]``.

    Returns:
        bool ``[B, H, W]``; images within the budget are untouched, the others keep exactly
        ``max_points``.
    """
    count = mask.flatten(1).sum(1)
    # A graph that is exported cannot look at values: there the budget is a number.
    if not torch.compiler.is_exporting() and not (count > max_points).any():
        return mask
    inside = score.masked_fill(~mask, float('-inf'))
    if isinstance(max_points, int):
        return top_k_mask(inside, count.clamp(max=max_points), max_points)
    return top_k_mask(inside, count.minimum(max_points))


def fill_mask(mask: Tensor, score: Tensor, min_points: int, valid: Tensor | None = None) -> Tensor:
    """Add the highest-scoring pixels of every image until it has ``min_points`` active ones.

    Batch norm over a handful of rows is noise, so training asks for a minimum.

    Args:
        mask: bool ``[B, H, W]``.
        score: float ``[B, H, W]``.
        valid: bool ``[B, H, W]``, pixels that may be taken; ``None`` means all.

    Returns:
        bool ``[B, H, W]``, a superset of ``mask``. An image with fewer valid pixels than
        ``min_points`` gets all of them.
    """
    count = mask.flatten(1).sum(1)
    if not (count < min_points).any():
        return mask
    if valid is None:
        valid = torch.ones_like(mask)
    first = score.masked_fill(mask, float('inf')).masked_fill(~valid & ~mask, float('-inf'))
    wanted = count.clamp(min=min_points)
    return top_k_mask(first, wanted) & (valid | mask)


def label_boundary(classes: Tensor) -> Tensor:
    """Pixels that have a neighbor of another class beside, above or below.

    Args:
        classes: any dtype, ``[B, H, W]``.

    Returns:
        bool ``[B, H, W]``; the frame of the image is no boundary.
    """
    boundary = torch.zeros_like(classes, dtype=torch.bool)
    beside, below = classes[..., 1:] != classes[..., :-1], classes[:, 1:] != classes[:, :-1]
    boundary[..., 1:] |= beside
    boundary[..., :-1] |= beside
    boundary[:, 1:] |= below
    boundary[:, :-1] |= below
    return boundary


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Pixels within ``radius`` of an active one, along rows and columns at most.

    By differences of running counts: the time does not grow with the radius.

    Args:
        mask: bool ``[B, H, W]``.
        radius: in pixels; 0 returns the mask.

    Returns:
        bool ``[B, H, W]``.
    """
    for dim in (1, 2) if radius else ():
        size = mask.shape[dim]
        count = mask.cumsum(dim, dtype=torch.int32)
        ahead = torch.arange(size, device=mask.device).add_(radius).clamp_(max=size - 1)
        behind = count.narrow(dim, 0, max(size - radius - 1, 0))
        padding = (0, 0) * (2 - dim) + (size - behind.shape[dim], 0)
        mask = count.index_select(dim, ahead) > F.pad(behind, padding)
    return mask
