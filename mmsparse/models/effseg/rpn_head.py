"""FQDet's first stage: score all anchors, select the best, and make a query of each.

A query is a vector of ``C`` features; the second stage refines it to an object's class, box and
mask.

Source: Picron et al., "FQDet: Fast-converging Query-based Detector" (arXiv 2210.02318), sec. 3.
Letters: ``B`` images, ``C`` channels, ``L`` levels, ``P`` locations of all levels, ``T`` types of
anchors (scale and aspect ratio), each at every location, ``A = P T`` anchors, ``Q`` queries.
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


def apply_by_type(layers: nn.ModuleList, rows: Tensor, types: Tensor) -> Tensor:
    """Pass each row through the layer of its type.

    Args:
        layers: ``T`` modules.
        rows: ``[N, C]``.
        types: int64 ``[N]``, number of the layer of each row.

    Returns:
        ``[N, C]``, in the order of ``rows``.
    """
    order = types.argsort(stable=True)
    sizes = types.bincount(minlength=len(layers)).tolist()  # the only wait for the GPU
    sorted_rows = torch.cat([layer(part) for layer, part in zip(
        layers, rows[order].split(sizes), strict=True)])
    return sorted_rows[order.argsort()]


@MODELS.register_module()
class FQDetRPNHead(BaseModule):
    """Scores all anchors and gives the best a query: an ``rpn_head`` for detectors of mmdet.

    It does not refine boxes: a proposal's box is the anchor itself. In training it also decides
    which object each query learns, by the overlap of the query's anchor with the objects.
    736,137 parameters with the defaults.

    A proposal has ``bboxes``, the anchor; ``features``, the query; and in training ``matched``,
    the number of its object within the image, -1 for none.

    Args:
        in_channels: ``C``.
        anchor_generator: config of mmdet's ``AnchorGenerator`` with as many anchors at each
            location of every level.
        loss_cls: config of the loss of the scores, with one class. Its sum is divided by the number
            of matched queries.
        bottleneck: channels inside the residual block.
        num_queries: ``Q``.
        positives: the scores learn to select this many anchors of each object, those that overlap
            it most.
        candidates: a query learns an object if its anchor is one of this many that overlap the
            object most.
        train_cfg, test_cfg, num_classes: given by mmdet's detector, not used.

    Raises:
        ValueError: a number is out of range, or levels differ in their number of anchors.
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
                raise ValueError(f'FQDetRPNHead.{name} must be at least 1, got {value!r}')
        if candidates < positives:
            raise ValueError('FQDetRPNHead.candidates must be at least positives '
                             f'({positives}), got {candidates!r}')
        self.prior_generator = TASK_UTILS.build(anchor_generator)
        types = set(self.prior_generator.num_base_priors)
        if len(types) > 1:
            raise ValueError('FQDetRPNHead.anchor_generator must have equally many anchors on '
                             f'all levels, got {sorted(types)}')
        self.loss_cls = MODELS.build(loss_cls)
        self.num_queries, self.positives, self.candidates = num_queries, positives, candidates
        self.first = pre_norm_conv(in_channels, in_channels, 1)
        self.block = nn.Sequential(
            pre_norm_conv(in_channels, bottleneck, 1), pre_norm_conv(bottleneck, bottleneck, 3),
            pre_norm_conv(bottleneck, in_channels, 1))
        types = types.pop()
        self.scores = nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, types, 1))
        nn.init.constant_(self.scores[1].get_parameter('bias'), bias_init_with_prob(0.01))
        self.transitions = nn.ModuleList(norm_linear(in_channels) for _ in range(types))

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores of all anchors.

        Args:
            x: ``L`` maps ``[B, C, H, W]``.

        Returns:
            The features of ``x`` in rows, ``[B, P, C]``, and logits ``[B, A]``. Anchor ``a`` is at
            location ``a // T`` and of type ``a % T``.
        """
        logits = []
        for level in x:
            level = self.first(level)
            level = level + self.block(level)
            logits.append(self.scores(level).permute(0, 2, 3, 1).flatten(1))  # [B, H W T]
        # "the selected feature becomes the query" (sec. 3): the map's, not one of the layers above
        return torch.cat([level.flatten(2).transpose(1, 2) for level in x], 1), torch.cat(logits, 1)

    def select(self, feats: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Select the anchors of the highest scores, and make their queries.

        Args:
            feats, logits: of :meth:`forward`.

        Returns:
            The selected anchors, int64 ``[B, Q]``, best first, and their queries ``[B, Q, C]``.
        """
        count = min(self.num_queries, logits.shape[1])
        selected = at_least_float32(logits.detach()).topk(count, 1).indices  # [B, Q]
        types = len(self.transitions)
        location = (selected // types)[..., None].expand(-1, -1, feats.shape[2])
        rows = feats.gather(1, location)  # [B, Q, C]
        queries = apply_by_type(
            self.transitions, rows.flatten(0, 1), (selected % types).flatten())
        return selected, queries.view(*selected.shape, -1)

    def all_anchors(self, x: Sequence[Tensor]) -> Tensor:
        """The anchors of all levels, float32 ``[A, 4]`` in pixels of the network's input."""
        return torch.cat(self.prior_generator.grid_priors(
            [f.shape[-2:] for f in x], device=x[0].device))

    def predict(self, x: Sequence[Tensor], batch_data_samples: list, rescale: bool = False
                ) -> InstanceList:
        """Proposals of each image, in pixels of the network's input whatever ``rescale`` is."""
        selected, queries = self.select(*self(x))
        return [InstanceData(bboxes=boxes, features=feats) for boxes, feats in zip(
            self.all_anchors(x)[selected], queries, strict=True)]

    def loss_and_predict(self, x: Sequence[Tensor], batch_data_samples: list,
                         proposal_cfg: dict | None = None) -> tuple[dict, InstanceList]:
        """The loss ``loss_rpn_cls``, and the proposals with their ``matched`` objects."""
        feats, logits = self(x)
        selected, queries = self.select(feats, logits)
        anchors = self.all_anchors(x)
        gt_boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        candidates = best_anchors(anchors, gt_boxes, self.candidates)
        target = selection_targets(candidates, len(gt_boxes), len(anchors), self.positives)
        matched = match_queries(candidates, selected, len(anchors))  # [B, Q]
        # mmdet's labels for one class: 0 is the class, 1 is background
        loss = self.loss_cls(
            at_least_float32(logits).flatten()[:, None], (~target).long().flatten(),
            avg_factor=mean_positives(matched >= 0))
        proposals, first = [], 0
        for i, boxes in enumerate(gt_boxes):
            # objects are numbered through all images; a proposal has the number in its own image
            in_image = torch.where(matched[i] < 0, -1, matched[i] - first)
            proposals.append(InstanceData(
                bboxes=anchors[selected[i]], features=queries[i], matched=in_image))
            first += len(boxes)
        return dict(loss_rpn_cls=loss), proposals
