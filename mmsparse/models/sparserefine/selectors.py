"""Which full-resolution pixels to refine.

A selector maps the image and the low-resolution logits to a mask; it is the only judge of where
compute goes. Letters: ``B`` images, ``K`` classes, ``H, W`` full size.
"""
from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import entropy, fill_mask, limit_mask

from .upsampled import UpsampledLogits


@MODELS.register_module()
class EntropySelector(BaseModule):
    """Select pixels whose low-resolution entropy exceeds ``alpha``. No parameters.

    Source: SparseRefine (ECCV 2024), sec. 3.2. The paper chooses ``alpha`` per model for a recall
    of at least 80 % of the wrong pixels: 0.3 for HRNet-W48, 0.1 for SegFormer-B5 and SegNeXt-L,
    0.05 and 0.005 for Mask2Former-T and -L.

    Args:
        num_classes: ``K``; filled in by the segmentor.
        alpha: threshold in nats, ``>= 0``; the comparison is strict. At ``ln K`` or above nothing
            can ever be selected, which is warned about.
        min_points: in training, add the most uncertain pixels until every image has this many.
        max_points: keep at most this many per image, the most uncertain ones; ``None`` is no limit.

    Raises:
        ValueError: ``alpha`` is negative or NaN, a point count is negative.
    """

    def __init__(self,
                 *,
                 num_classes: int,
                 alpha: float,
                 min_points: int = 0,
                 max_points: int | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not alpha >= 0:  # NaN fails every comparison
            raise ValueError(f'EntropySelector.alpha must be a number >= 0 (nats), got {alpha!r}')
        if min_points < 0 or (max_points is not None and max_points < max(min_points, 1)):
            raise ValueError('EntropySelector needs 0 <= min_points <= max_points and '
                             f'max_points >= 1, got {min_points} and {max_points}')
        if alpha >= math.log(num_classes):
            warnings.warn(
                f'EntropySelector.alpha={alpha} is at or above ln {num_classes} = '
                f'{math.log(num_classes):.4f}, the largest entropy {num_classes} classes can have: '
                'no pixel will ever be selected', stacklevel=2)
        self.alpha = alpha
        self.min_points = min_points
        self.max_points = max_points

    def forward(self,
                image: Tensor,
                logits: UpsampledLogits,
                valid: Tensor | None = None) -> Tensor:
        """Mask of the pixels to refine.

        Args:
            image: ``[B, 3, H, W]``; not looked at.
            logits: low-resolution logits.
            valid: bool ``[B, H, W]``, false on padding; ``None`` means there is none.

        Returns:
            bool ``[B, H, W]``.
        """
        mask = logits.per_pixel(lambda z: entropy(z) > self.alpha, torch.bool)
        if valid is not None:
            mask &= valid
        fill = self.training and self.min_points
        if self.max_points is None and not fill:
            return mask
        score = logits.per_pixel(entropy, torch.float32)
        if self.max_points is not None:
            mask = limit_mask(mask, score, self.max_points)
        return fill_mask(mask, score, self.min_points, valid) if fill else mask


@MODELS.register_module()
class LearnableSelector(BaseModule):
    """Select pixels that a small network believes to be wrong.

    Two 3x3 convolutions on the image, joined per pixel with the logits, then a three-layer
    perceptron: ``32 K + 4401`` parameters, 5,009 for the 19 classes of Cityscapes. In the paper
    it costs twice the time of the entropy selector for one more point of recall and no mIoU.
    Source: SparseRefine (ECCV 2024), supplement sec. 3; its training is not disclosed there. Here
    it learns to predict "the low-resolution class is wrong" by a balanced cross entropy.

    Args:
        num_classes: ``K``; filled in by the segmentor.
        threshold: probability above which a pixel is selected, in ``(0, 1)``.

    Raises:
        ValueError: ``threshold`` is not a probability.
    """

    def __init__(self,
                 *,
                 num_classes: int,
                 threshold: float = 0.5,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not 0 < threshold < 1:
            raise ValueError('LearnableSelector.threshold must be a probability in (0, 1), got '
                             f'{threshold!r}')
        self.threshold = threshold
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        # 1x1 convolutions are the linear layers of the paper, applied to every pixel in place.
        self.classifier = nn.Sequential(
            nn.Conv2d(num_classes + 16, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 1, 1))

    def score(self, image: Tensor, logits: UpsampledLogits) -> Tensor:
        """Log-odds that a pixel is wrong, ``[B, H, W]``."""
        features = torch.cat([self.stem(image), logits.full().to(image.dtype)], 1)
        return self.classifier(features)[:, 0]

    def forward(self,
                image: Tensor,
                logits: UpsampledLogits,
                valid: Tensor | None = None) -> Tensor:
        """Mask of the pixels to refine; arguments and result as :class:`EntropySelector`."""
        with torch.no_grad():
            mask = self.score(image, logits).sigmoid() > self.threshold
        return mask if valid is None else mask & valid

    def loss(self,
             image: Tensor,
             logits: UpsampledLogits,
             labels: Tensor,
             ignore_index: int = 255) -> dict[str, Tensor]:
        """Binary cross entropy against "the low-resolution class is wrong".

        Wrong pixels are few (3 % on Cityscapes), so they weigh as much in sum as the right ones.

        Args:
            image: ``[B, 3, H, W]``.
            labels: int64 ``[B, H, W]``; ``ignore_index`` is left out.

        Returns:
            ``loss_selector``, a scalar; zero if no pixel has a label.
        """
        labeled = labels != ignore_index
        wrong = (logits.argmax() != labels) & labeled
        positives, total = wrong.sum(), labeled.sum()
        weight = (total - positives) / positives.clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(
            self.score(image, logits), wrong.float(), pos_weight=weight, reduction='none')
        return dict(loss_selector=(loss * labeled).sum() / total.clamp(min=1))
