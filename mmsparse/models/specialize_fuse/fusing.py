"""One map out of a pyramid: every pixel takes the coarsest cell that claims to be of one class.

Source: Specialize and Fuse (ICCV 2021), abstract and supplement. Letters: ``B`` images, ``K``
classes, ``H, W`` size in pixels, ``h, w`` cells of a level, ``L`` levels, coarse to fine.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmsparse.registry import TASK_UTILS

from .cells import UP_MODES, check, done_cells, up

SPACES = ('log_prob', 'logit')


@TASK_UTILS.register_module()
class PyramidFusion:
    """How a pyramid becomes one map: what counts as unity, what is fused, how it is enlarged.

    Args:
        unity_thr: probability from which a cell counts as unity, in training and inference.
        space: what is fused. ``'log_prob'``: the logarithm of the softmax, which levels of
            different scale share and of which softmax (mmseg's test-time augmentation) makes
            probabilities again; ``'logit'``.
        upsample: from the finest level to pixels, ``'bilinear'`` or ``'nearest'``.
        sparse: compute finer levels in evaluation only where no coarser cell is unity: the same
            result.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, unity_thr: float = 0.5, space: str = 'log_prob',
                 upsample: str = 'bilinear', sparse: bool = False) -> None:
        name = type(self).__name__
        if not 0 < unity_thr < 1:
            raise ValueError(f'{name}.unity_thr must be in (0, 1), got {unity_thr!r}')
        check(name, 'space', space, SPACES)
        check(name, 'upsample', upsample, UP_MODES)
        self.unity_thr = unity_thr
        self.space = space
        self.upsample = upsample
        self.sparse = sparse

    def claimed(self, logits: Tensor) -> Tensor:
        """Cells that count as unity, bool: ``sigmoid(logit) >= unity_thr``, by the logit itself."""
        return logits.float() >= math.log(self.unity_thr / (1 - self.unity_thr))

    def scores(self, logits: Tensor) -> Tensor:
        """What is fused, of class logits ``[B, K, h, w]``; float32 of that shape."""
        return logits.float().log_softmax(1) if self.space == 'log_prob' else logits.float()


def fuse(maps: Sequence[Tensor], unity: Sequence[Tensor], ratios: Sequence[int]) -> Tensor:
    """The finest grid: each cell takes the value of the coarsest unity cell that it lies in.

    Where there is none, its own. Cells of finer levels below a unity cell are not read.

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
