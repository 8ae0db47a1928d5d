"""What every level of the output pyramid has to predict, and what is left to finer levels.

Source: Hsiao et al., "Specialize and Fuse: Pyramidal Output Representation for Semantic
Segmentation", ICCV 2021, supplement (ground truth of the pyramids; re-labelling). Letters: ``B``
images, ``K`` classes, ``H, W`` size in pixels, ``h, w`` cells of a level, ``L`` levels, coarse to
fine.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsparse.registry import TASK_UTILS

from .cells import check, done_cells, grid_size, level_ratios, up

MIX, UNITY, IGNORED = 0, 1, 255
FINEST_TARGETS = ('per_pixel', 'majority')
RELABELINGS = ('naive', 'gt_unity', 'true_positive')
_NO_CLASS = 1e4  # above any class; float32 holds all of them exactly


class LevelTargets(NamedTuple):
    """What the levels learn from, int64, coarse to fine.

    Attributes:
        classes: of all levels, re-labelled, ``[B, h, w]``; of the finest ``[B, H, W]`` if it learns
            from pixels.
        unity: of the levels but the finest, re-labelled, ``[B, h, w]``.
        unity_gt: the same before re-labelling.
    """

    classes: list[Tensor]
    unity: list[Tensor]
    unity_gt: list[Tensor]


@TASK_UTILS.register_module()
class PyramidTargets:
    """What every level learns from, and what it leaves to coarser ones.

    Args:
        relabel: ``'naive'``, ``'gt_unity'`` or ``'true_positive'``, see :func:`settled_cells`.
        require_class: a true positive needs the right class, too.
        finest: of the finest level. ``'per_pixel'``: the labels themselves, for its logits enlarged
            to pixels; ``'majority'``: the most frequent class of each cell.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, relabel: str = 'true_positive', require_class: bool = False,
                 finest: str = 'per_pixel') -> None:
        name = type(self).__name__
        check(name, 'relabel', relabel, RELABELINGS)
        check(name, 'finest', finest, FINEST_TARGETS)
        self.relabel = relabel
        self.require_class = require_class
        self.finest = finest

    def __call__(self, labels: Tensor, strides: Sequence[int], ignore_index: int,
                 claimed: Sequence[Tensor], class_logits: Sequence[Tensor]) -> LevelTargets:
        """Targets of one batch.

        Args:
            labels: int64 ``[B, H, W]``.
            strides: of the levels, coarse to fine.
            ignore_index: label that counts nowhere.
            claimed: cells predicted as unity, bool ``[B, 1, h, w]`` of the levels but the finest;
                empty if unity is not predicted.
            class_logits: ``[B, K, h, w]`` of the levels that have them.
        """
        classes, unity = pyramid_targets(labels, strides, ignore_index)
        right = dict(classes=classes[:-1], class_logits=class_logits[:-1])
        settled = settled_cells(self.relabel, unity, claimed,
                                **right if self.require_class else {})
        done = done_cells(settled, level_ratios(strides), [c.shape[1:] for c in classes[1:]])
        stride = strides[-1]
        finest = labels if self.finest == 'per_pixel' else majority_targets(
            labels, stride, ignore_index)
        if done:
            ratio = stride if self.finest == 'per_pixel' else 1
            finest = finest.masked_fill(up(done[-1], ratio, finest.shape[1:]), ignore_index)
        return LevelTargets([*relabeled(classes[:-1], done, ignore_index), finest],
                            relabeled(unity, done, IGNORED), unity)


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
    # Three maxima of a cell decide: its highest class, minus its lowest, whether a pixel is
    # ignored. Classes 3 and 7 give 7, -3 and 0: a mix. In float32, for which max pooling exists
    # everywhere; each level is pooled from the finer one.
    extremes = torch.stack([labels.masked_fill(void, -1), (-labels).masked_fill(void, -_NO_CLASS),
                            void.long()], 1).float()  # [B, 3, H, W]
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
    # [B, h, w, stride ** 2]: how many pixels of its cell have the class of this one
    counts = (pixels[..., :, None] == pixels[..., None, :]).sum(-1)
    counts = counts.masked_fill(pixels == ignore_index, 0)
    best = counts == counts.amax(-1, keepdim=True)
    lowest = pixels.masked_fill(~best, torch.iinfo(pixels.dtype).max).amin(-1)
    return torch.where(counts.amax(-1) > 0, lowest, ignore_index)


def settled_cells(relabel: str,
                  unity: Sequence[Tensor],
                  claimed: Sequence[Tensor],
                  *,
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
        claimed: cells predicted as unity, bool ``[B, 1, h, w]``.
        classes, class_logits: targets ``[B, h, w]`` and predictions ``[B, K, h, w]`` of the same
            levels; with them a true positive needs the right class as well.

    Returns:
        bool ``[B, h, w]``.
    """
    gt = [target == UNITY for target in unity]
    if relabel == 'naive':
        return [torch.zeros_like(cells) for cells in gt]
    if relabel == 'gt_unity':
        return gt
    settled = [cells & positive.squeeze(1) for cells, positive in zip(gt, claimed, strict=True)]
    if classes is not None and class_logits is not None:
        settled = [cells & (logits.argmax(1) == target) for cells, logits, target in
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
    """Numbers of true positives, of unity cells, and of cells claimed as unity; int64 ``[3]``.

    Ignored cells count nowhere. Recall is the first over the second, precision the first over the
    third.

    Args:
        positive: bool ``[B, h, w]``, predicted as unity.
        target: unity of :func:`pyramid_targets`, ``[B, h, w]``.
    """
    gt, claimed = target == UNITY, positive & (target != IGNORED)
    return torch.stack([(positive & gt).sum(), gt.sum(), claimed.sum()])
