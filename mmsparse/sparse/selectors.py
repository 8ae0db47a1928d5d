"""Which full-resolution pixels to refine.

A selector maps the image and coarse class scores to a mask; it is the only judge of where compute
goes, in every method that refines. Letters: ``B`` images, ``K`` classes, ``H, W`` full size.
"""
from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmsparse.registry import MODELS

from .selection import dilate, entropy, fill_mask, label_boundary, limit_mask
from .upsampled import UpsampledLogits


class Selection(NamedTuple):
    """What a selector returns.

    Attributes:
        mask: the pixels to refine, bool ``[B, H, W]``.
        threshold: float32 ``[B]``, the score of the weakest pixel kept in an image that the budget
            cut, elsewhere the selector's own threshold; ``None`` without a budget.
    """

    mask: Tensor
    threshold: Tensor | None = None


class Selector(BaseModule):
    """A score per pixel, a threshold, and a budget per image.

    A subclass says what the score is. Its ``THRESHOLD`` names the argument that holds the
    threshold and ``highest_score`` is the score that no pixel exceeds: what calibration asks for.

    Args:
        num_classes: ``K``.
        threshold: a pixel is selected if its score is greater.
        min_points: in training, add the highest-scoring pixels until every image has this many.
        max_points: keep at most this many pixels per image, those of the highest score.
        max_density: the same as a share of the image's pixels without padding, in ``(0, 1]``. With
            a threshold of zero this selects the same share of every image.

    Raises:
        ValueError: a budget is out of range.
    """

    THRESHOLD: str
    highest_score: float

    def __init__(self,
                 *,
                 num_classes: int,
                 threshold: float,
                 min_points: int = 0,
                 max_points: int | None = None,
                 max_density: float | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        if min_points < 0 or (max_points is not None and max_points < max(min_points, 1)):
            raise ValueError(f'{name} needs 0 <= min_points <= max_points and max_points >= 1, got '
                             f'{min_points} and {max_points}')
        if max_density is not None and not 0 < max_density <= 1:
            raise ValueError(f'{name}.max_density must be a share of the pixels in (0, 1], got '
                             f'{max_density!r}')
        self.num_classes = num_classes
        self.threshold = threshold
        self.min_points = min_points
        self.max_points = max_points
        self.max_density = max_density

    def score(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """How much a pixel deserves refinement, float32 ``[B, H, W]``."""
        raise NotImplementedError

    def above(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Pixels whose score exceeds the threshold, bool ``[B, H, W]``."""
        return self.score(image, logits) > self.threshold

    def budget(self, mask: Tensor, valid: Tensor | None) -> Tensor | int | None:
        """Pixels that may be kept of every image, int64 ``[B]`` if padding makes them differ.

        Args:
            mask: bool ``[B, H, W]``, for its shape.
            valid: bool ``[B, H, W]``, false on padding; ``None`` means there is none.

        Returns:
            ``None`` is any number.
        """
        if self.max_density is None:
            return self.max_points
        pixels = mask[0].numel()
        most = pixels if self.max_points is None else self.max_points
        if valid is None:
            return min(int(pixels * self.max_density), most)
        return (valid.flatten(1).sum(1) * self.max_density).long().clamp(max=most)

    @torch.no_grad()
    def forward(self,
                image: Tensor,
                logits: UpsampledLogits,
                valid: Tensor | None = None) -> Selection:
        """Choose the pixels to refine.

        Args:
            image: ``[B, 3, H, W]``.
            logits: low-resolution logits.
            valid: bool ``[B, H, W]``, false on padding; ``None`` means there is none.
        """
        mask = self.above(image, logits)
        if valid is not None:
            mask &= valid
        budget = self.budget(mask, valid)
        fill = self.training and self.min_points > 0
        if budget is None and not fill:
            return Selection(mask)
        score = self.score(image, logits)
        threshold = None
        if budget is not None:
            cut = mask.flatten(1).sum(1) > budget
            mask = limit_mask(mask, score, budget)
            weakest = score.masked_fill(~mask, math.inf).flatten(1).amin(1)
            threshold = torch.where(cut, weakest, self.threshold)
        if fill:
            mask = fill_mask(mask, score, self.min_points, valid)
        return Selection(mask, threshold)


@MODELS.register_module()
class EntropySelector(Selector):
    """Select pixels whose low-resolution entropy exceeds ``alpha``. No parameters.

    Source: SparseRefine (ECCV 2024), sec. 3.2. The paper chooses ``alpha`` per model for a recall
    of at least 80 % of the wrong pixels: 0.3 for HRNet-W48, 0.1 for SegFormer-B5 and SegNeXt-L,
    0.05 and 0.005 for Mask2Former-T and -L. ``mim run mmsparse calibrate`` finds that of a model.

    Args:
        num_classes: ``K``; filled in by the segmentor.
        alpha: threshold in nats, ``>= 0``; the comparison is strict. At ``ln K`` or above nothing
            can ever be selected, which is warned about.
        **budget: ``min_points``, ``max_points``, ``max_density`` of :class:`Selector`.

    Raises:
        ValueError: ``alpha`` is negative or NaN, or the budget is out of range.
    """

    THRESHOLD = 'alpha'

    def __init__(self, *, num_classes: int, alpha: float, **budget: Any) -> None:
        if not alpha >= 0:  # NaN fails every comparison
            raise ValueError(f'EntropySelector.alpha must be a number >= 0 (nats), got {alpha!r}')
        super().__init__(num_classes=num_classes, threshold=alpha, **budget)
        self.highest_score = math.log(num_classes)
        if alpha >= self.highest_score:
            warnings.warn(
                f'EntropySelector.alpha={alpha} is at or above ln {num_classes} = '
                f'{self.highest_score:.4f}, the largest entropy {num_classes} classes can have: '
                'no pixel will ever be selected', stacklevel=2)

    def score(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Entropy in nats, float32 ``[B, H, W]``; the image is not looked at."""
        return logits.entropy()

    def above(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """As in :class:`Selector`; compares first and expands then, where it can."""
        return logits.per_pixel(lambda z: entropy(z) > self.threshold, torch.bool)


@MODELS.register_module()
class BoundarySelector(EntropySelector):
    """Select uncertain pixels, and those near a boundary between the coarse classes.

    A coarse mask is often certain and wrong beside its contour; entropy alone would leave that.

    Args:
        num_classes: ``K``.
        alpha: threshold of the entropy in nats. With two classes a probability ``p`` has
            ``|p - 0.5| < 0.4`` where its entropy exceeds 0.325.
        radius: how far from a boundary, as a share of ``H + W``; the distance is measured along
            rows and columns, the greater one counts.
        **budget: of :class:`Selector`.

    Raises:
        ValueError: ``radius`` is not a share, or as :class:`EntropySelector`.
    """

    def __init__(self, *, num_classes: int = 2, alpha: float = 0.325, radius: float = 1 / 300,
                 **budget: Any) -> None:
        if not 0 <= radius < 1:
            raise ValueError('BoundarySelector.radius must be a share of H + W in [0, 1), got '
                             f'{radius!r}')
        super().__init__(num_classes=num_classes, alpha=alpha, **budget)
        self.radius = radius

    def near(self, logits: UpsampledLogits) -> Tensor:
        """Pixels within the radius of a boundary, bool ``[B, H, W]``."""
        return dilate(label_boundary(logits.classes()), round(self.radius * sum(logits.size)))

    def score(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Entropy in nats, float32 ``[B, H, W]``; the greatest there is near a boundary."""
        return super().score(image, logits).masked_fill_(self.near(logits), self.highest_score)

    def above(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """As in :class:`Selector`, without the map of scores."""
        return super().above(image, logits) | self.near(logits)
