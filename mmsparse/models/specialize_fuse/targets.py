"""What every level of the output pyramid has to predict, and what is left to finer levels.

Source: Hsiao et al., "Specialize and Fuse: Pyramidal Output Representation for Semantic
Segmentation", ICCV 2021, supplement (ground truth of the pyramids; re-labelling). Letters: ``B``
images, ``K`` classes, ``H, W`` size in pixels, ``h, w`` cells of a level, ``L`` levels, coarse to
fine.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .cells import grid_size, level_ratios

MIX, UNITY, IGNORED = 0, 1, 255
FINEST_TARGETS = ('per_pixel', 'nearest', 'majority', 'cell_rule')
RELABELINGS = ('naive', 'gt_unity', 'true_positive')
_NO_CLASS = 1e4  # above any class; float32 holds all of them exactly


def is_unity(logits: Tensor, unity_thr: float) -> Tensor:
    """Whether cells count as unity: ``sigmoid(logit) >= unity_thr``, by the logit itself."""
    return logits >= math.log(unity_thr / (1 - unity_thr))


def pyramid_targets(labels: Tensor, strides: Sequence[int], ignore_index: int = 255
                    ) -> tuple[list[Tensor], list[Tensor]]:
    """Classes and unity of the cells of every level (supplement, cases 1 to 3).

    ============================  =======  =========
    pixels of the cell            unity    class
    ============================  =======  =========
    all of one class              UNITY    the class
    two classes or more           MIX      ignored
    one class and ignored ones    IGNORED  ignored
    all ignored                   IGNORED  ignored
    ============================  =======  =========

    One deviating pixel makes a mix cell. What a cell covers outside the image is ignored.

    Args:
        labels: int64 ``[B, H, W]``.
        strides: of the levels, coarse to fine, each dividing the one before.
        ignore_index: label that counts nowhere.

    Returns:
        Classes of ``L`` levels, with ``ignore_index``, and unity of the levels but the finest, with
        ``IGNORED``; int64 ``[B, ceil(H / s), ceil(W / s)]``.
    """
    height, width = labels.shape[1:]
    labels = F.pad(labels, (0, -width % strides[0], 0, -height % strides[0]), value=ignore_index)
    void = labels == ignore_index
    # Three maxima say it all: the highest class, minus the lowest, whether a pixel is ignored. In
    # float32, for which max pooling exists everywhere; each level is pooled from the finer one.
    extremes = torch.stack([labels.masked_fill(void, -1), (-labels).masked_fill(void, -_NO_CLASS),
                            void.long()], 1).float()
    steps = (*level_ratios(strides), strides[-1])
    classes, unity = [], []
    for stride, step in zip(reversed(strides), reversed(steps), strict=True):
        extremes = F.max_pool2d(extremes, step)
        rows, columns = grid_size((height, width), stride)
        high, low, some_void = extremes[:, :, :rows, :columns].unbind(1)
        pure = (high == -low) & (some_void == 0)
        classes.append(torch.where(pure, high.long(), ignore_index))
        unity.append(torch.where(pure, UNITY, torch.where(high > -low, MIX, IGNORED)))
    return classes[::-1], unity[:0:-1]


def nearest_targets(labels: Tensor, stride: int, ignore_index: int = 255) -> Tensor:
    """Label in the middle of every cell, int64 ``[B, h, w]``; ignored if that is outside."""
    padded = F.pad(labels, (0, stride, 0, stride), value=ignore_index)
    rows, columns = grid_size(labels.shape[1:], stride)
    start = stride // 2
    return padded[:, start::stride, start::stride][:, :rows, :columns]


def majority_targets(labels: Tensor, stride: int, ignore_index: int = 255) -> Tensor:
    """Most frequent class of every cell, int64 ``[B, h, w]``; the lowest of several.

    Ignored pixels have no vote; a cell of nothing else is ignored.
    """
    height, width = labels.shape[1:]
    padded = F.pad(labels, (0, -width % stride, 0, -height % stride), value=ignore_index)
    rows, columns = grid_size((height, width), stride)
    pixels = padded.view(-1, rows, stride, columns, stride).transpose(2, 3).flatten(3)
    counts = (pixels[..., :, None] == pixels[..., None, :]).sum(-1)
    counts = counts.masked_fill(pixels == ignore_index, 0)
    best = counts == counts.amax(-1, keepdim=True)
    lowest = pixels.masked_fill(~best, torch.iinfo(pixels.dtype).max).amin(-1)
    return torch.where(counts.amax(-1) > 0, lowest, ignore_index)


def settled_cells(relabel: str,
                  unity: Sequence[Tensor],
                  unity_logits: Sequence[Tensor],
                  *,
                  unity_thr: float = 0.5,
                  classes: Sequence[Tensor] | None = None,
                  class_logits: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Cells whose children need not be learned any more, of the levels but the finest.

    - ``'naive'``: none.
    - ``'gt_unity'``, the supplement's simple fix: unity cells of the ground truth.
    - ``'true_positive'``, its final method: those of them that are predicted as unity. Finer levels
      keep the unity cells that the coarse level misses, and all below a mix cell.

    Args:
        relabel: one of ``RELABELINGS``.
        unity: targets ``[B, h, w]`` of :func:`pyramid_targets`.
        unity_logits: predictions ``[B, 1, h, w]``; used without gradient.
        unity_thr: of :func:`is_unity`.
        classes, class_logits: targets ``[B, h, w]`` and predictions ``[B, K, h, w]`` of the same
            levels; with them a true positive needs the right class as well.

    Returns:
        bool ``[B, h, w]``.
    """
    true = [target == UNITY for target in unity]
    if relabel == 'naive':
        return [torch.zeros_like(cells) for cells in true]
    if relabel == 'gt_unity':
        return true
    settled = [cells & is_unity(logits.detach().squeeze(1).float(), unity_thr)
               for cells, logits in zip(true, unity_logits, strict=True)]
    if classes is not None and class_logits is not None:
        settled = [cells & (logits.detach().argmax(1) == target) for cells, logits, target in
                   zip(settled, class_logits, classes, strict=True)]
    return settled


def relabeled(targets: Sequence[Tensor], done: Sequence[Tensor], ignored: int) -> list[Tensor]:
    """Targets with the cells ignored that are done by coarser ones (supplement, re-labelling).

    Args:
        targets: ``[B, h, w]`` of consecutive levels from the coarsest on.
        done: of :func:`~.cells.done_cells`, from the second level on.
        ignored: the value that counts nowhere.
    """
    return [*targets[:1], *(target.masked_fill(cells, ignored)
                            for target, cells in zip(targets[1:], done, strict=False))]


def unity_counts(positive: Tensor, target: Tensor) -> Tensor:
    """Unity cells that are found, that there are, and that are claimed; int64 ``[3]``.

    Ignored cells count nowhere. Recall is the first over the second, precision over the third.

    Args:
        positive: bool ``[B, h, w]``, predicted as unity.
        target: unity of :func:`pyramid_targets`, ``[B, h, w]``.
    """
    true, claimed = target == UNITY, positive & (target != IGNORED)
    return torch.stack([(positive & true).sum(), true.sum(), claimed.sum()])
