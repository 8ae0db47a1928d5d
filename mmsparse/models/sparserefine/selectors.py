"""Which full-resolution pixels to refine.

A selector maps the image and the low-resolution logits to a mask; it is the only judge of where
compute goes. Letters: ``B`` images, ``K`` classes, ``H, W`` full size.
"""
from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import entropy, fill_mask, limit_mask

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

    def budget(self, mask: Tensor, valid: Tensor | None) -> Tensor | None:
        """Pixels that may be kept, int64 ``[B]``; ``None`` is any number.

        Args:
            mask: bool ``[B, H, W]``, for its shape.
            valid: bool ``[B, H, W]``, false on padding; ``None`` means there is none.
        """
        limits = []
        if self.max_points is not None:
            limits.append(torch.full((len(mask),), self.max_points, device=mask.device))
        if self.max_density is not None:
            valid = torch.ones_like(mask) if valid is None else valid
            limits.append((valid.flatten(1).sum(1) * self.max_density).long())
        return torch.stack(limits).amin(0) if limits else None

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

    def __init__(self, *, num_classes: int, alpha: float, **budget) -> None:
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
class LearnableSelector(Selector):
    """Select pixels that a small network believes to be wrong.

    Two 3x3 convolutions on the image, joined per pixel with the logits, then a three-layer
    perceptron: ``32 K + 4401`` parameters, 5,009 for the 19 classes of Cityscapes. In the paper
    it costs twice the time of the entropy selector for one more point of recall and no mIoU.
    Source: SparseRefine (ECCV 2024), supplement sec. 3; its training is not disclosed there. Here
    it learns to predict "the low-resolution class is wrong" by a balanced cross entropy, after
    which ``mim run mmsparse calibrate`` finds the threshold for a density.

    Args:
        num_classes: ``K``; filled in by the segmentor.
        threshold: probability above which a pixel is selected, in ``(0, 1)``.
        **budget: ``min_points``, ``max_points``, ``max_density`` of :class:`Selector`.

    Raises:
        ValueError: ``threshold`` is not a probability, or the budget is out of range.
    """

    THRESHOLD = 'threshold'
    highest_score = 1.0

    def __init__(self, *, num_classes: int, threshold: float = 0.5, **budget) -> None:
        if not 0 < threshold < 1:
            raise ValueError('LearnableSelector.threshold must be a probability in (0, 1), got '
                             f'{threshold!r}')
        super().__init__(num_classes=num_classes, threshold=threshold, **budget)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        # 1x1 convolutions are the linear layers of the paper, applied to every pixel in place.
        self.classifier = nn.Sequential(
            nn.Conv2d(num_classes + 16, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 1, 1))

    def log_odds(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Log-odds that a pixel is wrong, ``[B, H, W]``."""
        features = torch.cat([self.stem(image), logits.full().to(image.dtype)], 1)
        return self.classifier(features)[:, 0]

    def score(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Probability that a pixel is wrong, float32 ``[B, H, W]``."""
        return self.log_odds(image, logits).float().sigmoid()

    def loss(self,
             image: Tensor,
             logits: UpsampledLogits,
             labels: Tensor,
             valid: Tensor | None = None,
             ignore_index: int = 255) -> dict[str, Tensor]:
        """Binary cross entropy against "the low-resolution class is wrong".

        Wrong pixels are few (3 % on Cityscapes), so they weigh as much in sum as the right ones.

        Args:
            image: ``[B, 3, H, W]``.
            labels: int64 ``[B, H, W]``; ``ignore_index`` is left out.
            valid: bool ``[B, H, W]``, false on padding; ``None`` means there is none.

        Returns:
            ``loss_selector``, a scalar; zero if no pixel has a label.
        """
        labeled = labels != ignore_index
        if valid is not None:
            labeled &= valid
        wrong = (logits.classes() != labels) & labeled
        positives, total = wrong.sum(), labeled.sum()
        weight = (total - positives) / positives.clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(
            self.log_odds(image, logits), wrong.float(), pos_weight=weight, reduction='none')
        return dict(loss_selector=(loss * labeled).sum() / total.clamp(min=1))
