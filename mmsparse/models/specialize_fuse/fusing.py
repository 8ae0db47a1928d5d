"""One map out of a pyramid: every pixel takes the coarsest cell that claims to be of one class.

Source: Specialize and Fuse (ICCV 2021), abstract and supplement. Letters: ``B`` images, ``K``
classes, ``H, W`` size in pixels, ``h, w`` cells of a level, ``L`` levels, coarse to fine.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cells import done_cells, up

FUSE_SPACES = ('logit', 'prob', 'log_prob', 'one_hot')


def class_scores(logits: Tensor, space: str) -> Tensor:
    """What is fused, float32 ``[B, K, h, w]``.

    Args:
        logits: ``[B, K, h, w]``.
        space: ``'logit'``; ``'prob'``, their softmax; ``'log_prob'``, its logarithm, which levels
            of different scale share and of which softmax (mmseg's test-time augmentation) makes
            probabilities again; ``'one_hot'``.
    """
    logits = logits.float()
    if space == 'prob':
        return logits.softmax(1)
    if space == 'log_prob':
        return logits.log_softmax(1)
    if space == 'one_hot':
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
    return logits


def fuse(maps: Sequence[Tensor], unity: Sequence[Tensor], ratios: Sequence[int]) -> Tensor:
    """The finest grid, each cell filled by the coarsest level with a unity cell there.

    Where no level has one, by the finest. Cells of finer levels below a unity cell are not read.

    Args:
        maps: ``[B, C, h, w]`` of ``L`` levels.
        unity: bool ``[B, 1, h, w]`` of the levels but the finest.
        ratios: of :func:`~.cells.level_ratios`.

    Returns:
        ``[B, C, h, w]`` of the finest level.
    """
    sizes = [finer.shape[2:] for finer in maps[1:]]
    done = done_cells(unity, ratios, sizes)
    fused = maps[0]
    for finer, cells, ratio, size in zip(maps[1:], done, ratios, sizes, strict=True):
        fused = torch.where(cells, up(fused, ratio, size), finer)
    return fused
