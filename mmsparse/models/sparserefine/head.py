"""Sparse features to logits, and the loss on them."""
from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.losses import zero_loss
from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap

# Pixels that a CPU classifies at a time, so that all that is known of them stays in its cache.
CACHED = 4096


def inherit(key: str, cfg: dict, owner: str, **settings: int) -> dict:
    """A part's config with settings of its owner, which it may not contradict.

    Raises:
        ValueError: it does; the message names ``key``, under which the config stands.
    """
    cfg = dict(cfg)
    for name, value in settings.items():
        if cfg.setdefault(name, value) != value:
            raise ValueError(f"{key}.{name} is {cfg[name]!r}, but {owner}'s is {value}; "
                             'leave it out')
    return cfg


@MODELS.register_module()
class SparseRefineHead(BaseModule):
    """Extractor, linear classifier and ensembler on the selected pixels.

    The loss is the sum of the cross entropies of the classifier's and the ensembler's logits, each
    the mean over the selected pixels with a label (SparseRefine, sec. 3.5). In distributed
    training the mean is over the pixels of all processes, so that the gradient is that of the
    joint batch however unevenly the pixels fall; a process without any contributes zero.

    Letters: ``N`` selected pixels, ``K`` classes.

    Args:
        num_classes: ``K``.
        extractor: config of the sparse feature extractor.
        ensembler: config of the ensembler; ``num_classes`` is filled in.
        loss_decode: config of the loss of both outputs, or a list of them, called as
            ``loss(logits [N, K], labels [N], avg_factor=..., ignore_index=...)``. Beside cross
            entropy the paper's code has ``mmsparse.PointDiceLoss``, switched off.
        ignore_index: label that is not learned from; filled in by the segmentor.
    """

    # What mmseg's post-processing, slide mode and test-time augmentation ask a decode head for; the
    # segmentor that holds it sets its own.
    align_corners = False
    threshold = None

    def __init__(self,
                 *,
                 num_classes: int,
                 extractor: dict | None = None,
                 ensembler: dict | None = None,
                 loss_decode: dict | list[dict] | None = None,
                 ignore_index: int = 255,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if num_classes < 2:
            raise ValueError(f'SparseRefineHead.num_classes must be at least 2, got {num_classes}')
        self.num_classes = self.out_channels = num_classes
        self.ignore_index = ignore_index
        self.extractor = MODELS.build(extractor or dict(type='mmsparse.SparseUNet'))
        self.classifier = nn.Linear(self.extractor.out_channels, num_classes)
        self.ensembler = MODELS.build(inherit(
            'ensembler', ensembler or dict(type='mmsparse.GatedEnsembler'), 'SparseRefineHead',
            num_classes=num_classes))
        losses = loss_decode or dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)
        self.loss_decode = nn.ModuleList(
            MODELS.build(loss) for loss in ([losses] if isinstance(losses, dict) else losses))

    def forward(self, pixels: SparseMap, low_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the selected pixels.

        Args:
            pixels: the selected pixels with their input features.
            low_logits: low-resolution logits at these pixels, ``[N, K]``.

        Returns:
            The classifier's and the ensembler's logits, float32 ``[N, K]`` each.
        """
        return self.mix(self.extractor(pixels), low_logits)

    def mix(self, features: Tensor, low_logits: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, from the extractor's features ``[N, C]``."""
        # Entropies and logits of the two sources are compared: float32, outside autocast.
        with torch.autocast(low_logits.device.type, enabled=False):
            refined = self.classifier(features.float())
            return refined, self.ensembler(low_logits.float(), refined)

    def loss(self, pixels: SparseMap, low_logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the selected pixels.

        Args:
            pixels, low_logits: as in :meth:`forward`.
            labels: int64 ``[N]``, classes or ``ignore_index``.

        Returns:
            ``loss_sparse_ce`` and ``loss_ensemble_ce``, scalars, named after mmseg's ``loss_ce``;
            likewise for other losses.
        """
        # Mean over processes, not sum: DDP averages gradients, so the local sums divided by it
        # average to the mean over the joint batch.
        labeled = (labels != self.ignore_index).sum().float()
        all_reduce(labeled, op='mean')
        if len(pixels):
            outputs = self(pixels, low_logits)
            reduction = dict(avg_factor=labeled, ignore_index=self.ignore_index)
        else:
            # Zero through every parameter: DDP waits for the gradients of all of them.
            outputs, zero = (None, None), zero_loss(self.parameters())
        return {
            f'loss_{name}_{str(loss.loss_name).removeprefix("loss_")}':
                zero if logits is None else loss(logits, labels, **reduction)
            for name, logits in zip(('sparse', 'ensemble'), outputs, strict=True)
            for loss in self.loss_decode}

    def predict(self, pixels: SparseMap, low_logits: Tensor) -> Tensor:
        """The ensembler's logits, ``[N, K]``; no rows in, no rows out."""
        if torch.compiler.is_exporting():  # one graph for every number of pixels
            return self(pixels, low_logits)[1]
        if not len(pixels):
            return low_logits
        features = self.extractor(pixels)
        rows = len(features) if features.is_cuda else CACHED
        return torch.cat([self.mix(*part)[1] for part in zip(
            features.split(rows), low_logits.split(rows), strict=True)])
