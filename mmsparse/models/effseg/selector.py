"""FQDet's first stage: which anchors are worth a query, and the query that each of them starts as.

Source: Picron et al., "FQDet: Fast-converging Query-based Detector" (arXiv 2210.02318), sec. 3.
Letters: ``B`` images, ``C`` channels, ``L`` levels, ``P`` locations of all levels, ``T`` anchors of
a location, ``A = P T``, ``Q`` queries.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import TASK_UTILS
from mmdet.utils import InstanceList
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .matching import best_anchors, match_queries, mean_positives, selection_targets
from .queries import at_least_float32, norm_linear


def pre_norm_conv(channels_in: int, channels_out: int, size: int) -> nn.Sequential:
    """Group norm, ReLU, convolution."""
    return nn.Sequential(nn.GroupNorm(8, channels_in), nn.ReLU(inplace=True),
                         nn.Conv2d(channels_in, channels_out, size, padding=size // 2))


def by_type(layers: nn.ModuleList, rows: Tensor, kind: Tensor) -> Tensor:
    """Each row through the layer of its kind.

    Args:
        layers: ``T`` modules.
        rows: ``[N, C]``.
        kind: int64 ``[N]``, below ``T``.

    Returns:
        ``[N, C]``.
    """
    order = kind.argsort(stable=True)
    sizes = kind.bincount(minlength=len(layers)).tolist()  # the one wait for the device
    done = torch.cat([layer(part) for layer, part in zip(
        layers, rows[order].split(sizes), strict=True)])
    return done[order.argsort()]


@MODELS.register_module()
class FQDetSelector(BaseModule):
    """Scores all anchors, keeps the best, gives each its query: an ``rpn_head`` of mmdet.

    736,137 parameters with the defaults. In training it also matches the queries with the objects,
    by overlap of their anchors.

    A proposal has ``bboxes`` (the anchor), ``features`` (the query), and, in training, ``matched``
    (number of the object in its image, -1 for none).

    Args:
        in_channels: ``C``.
        anchor_generator: config of ``AnchorGenerator``, the same ``T`` on all levels.
        loss_cls: config of the loss of the scores, of one class, summed and divided by the number
            of matched queries.
        bottleneck: channels of the residual block.
        num_queries: ``Q``.
        positives: anchors of each object that should be selected.
        candidates: anchors of each object whose queries, if selected, learn it.
        train_cfg, test_cfg, num_classes: given by mmdet's detector, not used.

    Raises:
        ValueError: a number is out of range, or levels differ in their anchors.
    """

    def __init__(self,
                 *,
                 anchor_generator: dict,
                 loss_cls: dict,
                 in_channels: int = 256,
                 bottleneck: int = 64,
                 num_queries: int = 300,
                 positives: int = 5,
                 candidates: int = 15,
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None,
                 num_classes: int = 1,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        for name, value in (('num_queries', num_queries), ('positives', positives)):
            if value < 1:
                raise ValueError(f'FQDetSelector.{name} must be at least 1, got {value!r}')
        if candidates < positives:
            raise ValueError('FQDetSelector.candidates must be at least positives '
                             f'({positives}), got {candidates!r}')
        self.anchors = TASK_UTILS.build(anchor_generator)
        kinds = set(self.anchors.num_base_priors)
        if len(kinds) > 1:
            raise ValueError('FQDetSelector.anchor_generator must have equally many anchors on '
                             f'all levels, got {sorted(kinds)}')
        self.loss_cls = MODELS.build(loss_cls)
        self.num_queries, self.positives, self.candidates = num_queries, positives, candidates
        self.first = pre_norm_conv(in_channels, in_channels, 1)
        self.block = nn.Sequential(
            pre_norm_conv(in_channels, bottleneck, 1), pre_norm_conv(bottleneck, bottleneck, 3),
            pre_norm_conv(bottleneck, in_channels, 1))
        kinds = kinds.pop()
        self.scores = nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, kinds, 1))
        nn.init.constant_(self.scores[1].bias, bias_init_with_prob(0.01))
        self.transitions = nn.ModuleList(norm_linear(in_channels) for _ in range(kinds))

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores of all anchors.

        Args:
            x: ``L`` maps ``[B, C, H, W]``.

        Returns:
            Features ``[B, P, C]``, those of ``x``, and logits ``[B, A]``, in the order of the
            anchors.
        """
        logits = []
        for level in x:
            level = self.first(level)
            level = level + self.block(level)
            logits.append(self.scores(level).permute(0, 2, 3, 1).flatten(1))
        # "the selected feature becomes the query" (sec. 3): the map's, not the one that is scored
        return torch.cat([level.flatten(2).transpose(1, 2) for level in x], 1), torch.cat(logits, 1)

    def select(self, feats: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The anchors of the best scores and their queries.

        Args:
            feats, logits: of :meth:`forward`.

        Returns:
            int64 ``[B, Q]``, best first, and ``[B, Q, C]``.
        """
        count = min(self.num_queries, logits.shape[1])
        chosen = at_least_float32(logits.detach()).topk(count, 1).indices
        kinds = len(self.transitions)
        rows = feats.gather(1, (chosen // kinds)[..., None].expand(-1, -1, feats.shape[2]))
        queries = by_type(self.transitions, rows.flatten(0, 1), (chosen % kinds).flatten())
        return chosen, queries.view(*chosen.shape, -1)

    def all_anchors(self, x: Sequence[Tensor]) -> Tensor:
        """``[A, 4]`` in pixels of the network's input, float32."""
        return torch.cat(self.anchors.grid_priors([f.shape[-2:] for f in x], device=x[0].device))

    def predict(self, x: Sequence[Tensor], batch_data_samples: list, rescale: bool = False
                ) -> InstanceList:
        """Proposals of each image, in pixels of the input whatever ``rescale``."""
        chosen, queries = self.select(*self(x))
        return [InstanceData(bboxes=boxes, features=feats) for boxes, feats in zip(
            self.all_anchors(x)[chosen], queries, strict=True)]

    def loss_and_predict(self, x: Sequence[Tensor], batch_data_samples: list,
                         proposal_cfg: dict | None = None) -> tuple[dict, InstanceList]:
        """The loss ``loss_rpn_cls`` and the proposals with their ``matched`` objects."""
        feats, logits = self(x)
        chosen, queries = self.select(feats, logits)
        anchors = self.all_anchors(x)
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        found = best_anchors(anchors, boxes, self.candidates)
        wanted = selection_targets(found, len(boxes), len(anchors), self.positives)
        matched = match_queries(found, chosen, len(anchors))
        # class 0 is the only one, 1 stands for none of them
        loss = self.loss_cls(
            at_least_float32(logits).flatten()[:, None], (~wanted).long().flatten(),
            avg_factor=mean_positives(matched >= 0))
        results, before = [], 0
        for i, own in enumerate(boxes):
            mine = torch.where(matched[i] < 0, -1, matched[i] - before)
            results.append(InstanceData(
                bboxes=anchors[chosen[i]], features=queries[i], matched=mine))
            before += len(own)
        return dict(loss_rpn_cls=loss), results
