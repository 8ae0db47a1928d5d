"""A selector that is trained.

Letters: ``B`` images, ``K`` classes, ``H, W`` full size.
"""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import Selector, UpsampledLogits


@MODELS.register_module()
class LearnableSelector(Selector):
    """Select pixels that a small network believes to be wrong.

    Two 3x3 convolutions on the image; a three-layer perceptron reads of each pixel the ``K``
    logits, then the 16 channels of the convolutions (the order of the authors' released code):
    ``32 K + 4401`` parameters, 5,009 for the 19 classes of Cityscapes. In the paper it costs twice
    the time of the entropy selector for one more point of recall and no mIoU.
    Source: SparseRefine (ECCV 2024), supplement sec. 3; its training is not disclosed there. Here
    it learns to predict "the low-resolution class is wrong" by a balanced cross entropy, after
    which ``mim run mmsparse calibrate`` finds the threshold for a density. Another selector that is
    trained is a subclass of this one.

    Args:
        num_classes: ``K``; filled in by the segmentor.
        threshold: probability above which a pixel is selected, in ``(0, 1)``.
        **budget: ``min_points``, ``max_points``, ``max_density`` of :class:`Selector`.

    Raises:
        ValueError: ``threshold`` is not a probability, or the budget is out of range.
    """

    THRESHOLD = 'threshold'
    highest_score = 1.0

    def __init__(self, *, num_classes: int, threshold: float = 0.5, **budget: Any) -> None:
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
        features = torch.cat([logits.full().to(image.dtype), self.stem(image)], 1)
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
