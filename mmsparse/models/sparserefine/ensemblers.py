"""How the low-resolution and the refined opinion on a pixel become one.

Letters: ``N`` pixels, ``K`` classes. Source: SparseRefine (ECCV 2024), sec. 3.4 and supplement.
"""
from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import entropy, entropy_of_probabilities


@MODELS.register_module()
class GatedEnsembler(BaseModule):
    """A learned weight per pixel, then a small classifier over the mixed logits.

    With ``p = softmax(y)`` and ``E`` its entropy, a perceptron on
    ``[p_low, E(y_low), p_refined, E(y_refined)]`` gives two logits whose softmax ``(w1, w2)``
    mixes the logits ``w1 y_low + w2 y_refined`` (as a two-way softmax is the sigmoid of a
    difference, this is the paper's gate with bounded inputs); a second perceptron maps the mix to
    the result. ``257 K + 386`` parameters, 5,269 for the 19 classes of Cityscapes.

    Args:
        num_classes: ``K``.
        hidden_channels: width of both perceptrons.
    """

    def __init__(self,
                 *,
                 num_classes: int,
                 hidden_channels: int = 64,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.gate = nn.Sequential(
            nn.Linear(2 * (num_classes + 1), hidden_channels), nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, 2))
        self.classifier = nn.Sequential(
            nn.Linear(num_classes, hidden_channels), nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, num_classes))

    def weights(self, low: Tensor, refined: Tensor) -> Tensor:
        """``(w1, w2)`` of each pixel, ``[N, 2]``, non-negative and summing to one."""
        p, q = low.softmax(1), refined.softmax(1)
        inputs = torch.cat([p, entropy_of_probabilities(p)[:, None],
                            q, entropy_of_probabilities(q)[:, None]], 1)
        return self.gate(inputs).softmax(1)

    def forward(self, low: Tensor, refined: Tensor) -> Tensor:
        """Logits ``[N, K]`` from the low-resolution and the refined logits, both ``[N, K]``."""
        w = self.weights(low, refined)
        return self.classifier(w[:, :1] * low + w[:, 1:] * refined)


@MODELS.register_module()
class EntropyEnsembler(BaseModule):
    """Keep the less uncertain of the two logits; on a tie the refined ones. No parameters.

    Args:
        num_classes: accepted so that ensemblers are interchangeable in a config.
    """

    def __init__(self, *, num_classes: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes

    def forward(self, low: Tensor, refined: Tensor) -> Tensor:
        """Logits ``[N, K]`` from the low-resolution and the refined logits, both ``[N, K]``."""
        return torch.where((entropy(low) < entropy(refined))[:, None], low, refined)
