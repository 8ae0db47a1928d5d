"""EffSeg's mask head: coarse masks everywhere, fine ones where the coarse are in doubt.

Source: Picron and Tuytelaars, "EffSeg: Efficient Fine-Grained Instance Segmentation using
Structure-Preserving Sparsity", 2023, sec. 3. Letters: ``R`` RoIs, ``N`` active and ``M`` passive
cells, ``W`` and ``C`` channels before and after a stage, ``s`` stages 0 to 3.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse import SPSMap, from_dense, keep_best, select, split

from .queries import QueryFusion
from .rois import PyramidRows, RoIMasks, cell_centers, pyramid_rows, roi_levels, sample

BUDGETS = ('per_image', 'per_roi', 'threshold')
PUBLISHED_BUDGET = dict(per_image=10_000)
TARGETS = ('coverage', 'center')
# A cell is in doubt if the mask covers it in part. The average of a covered one may end a few 1e-8
# below 1, which the authors' code takes for doubt: 5 % of the doubtful cells of the last stage.
TOLERANCE = 1e-5


class Stage(NamedTuple):
    """What a stage says about its active cells.

    Attributes:
        segmentation: ``[N]``, logits of the object.
        refinement: ``[N]``, logits of a cell being worth a finer look; ``None`` where nobody asks.
        cells: int64 ``[N, 3]``, RoI, row, column.
        size: cells along a side of a RoI's grid.
    """

    segmentation: Tensor
    refinement: Tensor | None
    cells: Tensor
    size: int


def two_layers(channels_in: int, hidden: int, channels_out: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(channels_in, hidden), nn.ReLU(inplace=True),
                         nn.Linear(hidden, channels_out))


def sine_code(channels: int, size: int, device: torch.device | str) -> Tensor:
    """Fixed code of the cells of a RoI's grid: sines and cosines of x, then those of y.

    Args:
        channels: a multiple of 4; a quarter of it are frequencies, from 1 down to about 1/10,000.
        size: cells along a side. Their centers are counted from 0 to one full turn.
        device: of the result.

    Returns:
        float32 ``[channels, size, size]``.
    """
    count = channels // 4
    frequency = 10_000 ** -(torch.arange(count, device=device) / count)
    turn = 2 * math.pi * (torch.arange(size, device=device) + 0.5) / size
    angle = frequency[:, None] * turn
    code = torch.cat([angle.sin(), angle.cos()])
    return torch.cat([code[:, None].expand(-1, size, -1), code[:, :, None].expand(-1, -1, size)])


class SparseStage(nn.Module):
    """Halve the active cells, look at the pyramid again, talk to the neighbors.

    Args:
        width: ``W``, channels of the stage before; ``C`` is half of it.
        feature_channels: of the pyramid.
        processing: config of a module, see :mod:`.processing`.
        reduce_features: bring the pyramid's features to ``W`` channels before they are fused.
    """

    def __init__(self, width: int, feature_channels: int, processing: dict,
                 reduce_features: bool) -> None:
        super().__init__()
        channels = width // 2
        # the children differ by their part of the first layer alone
        self.child_first = nn.Linear(width, 4 * width)
        self.child_second = nn.Linear(width, width)
        self.reduce = nn.Linear(feature_channels, width) if reduce_features else nn.Identity()
        joined = width + (width if reduce_features else feature_channels)
        self.fuse = two_layers(joined, width, width)
        self.transition = nn.Linear(width, channels)
        self.processing = MODELS.build(dict(channels=channels, **processing))
        self.segmentation = two_layers(channels, channels, 1)
        self.refinement = two_layers(channels, channels, 1)

    def forward(self, x: SPSMap, keep: Tensor | None, pyramid: PyramidRows, rois: Tensor,
                level: Tensor) -> SPSMap:
        """The grids at twice the size.

        Args:
            x: the grids, ``W`` channels.
            keep: bool ``[N]``, which cells to split; ``None`` for all.
            pyramid: what to look at.
            rois: ``[R, 5]``.
            level: int64 ``[R]``, of the pyramid.

        Returns:
            The grids, ``C`` channels.
        """
        x = x if keep is None else select(x, keep)
        n, width = x.active.shape
        children = self.child_first(x.active).relu_().view(n, 4, width)
        x = split(x, self.child_second(children) + x.active[:, None])
        roi = x.cells[:, 0]
        seen = self.reduce(sample(pyramid, rois[roi, 0].long(), level[roi],
                                  cell_centers(rois, x.cells, x.index.shape[1])))
        active = x.active + self.fuse(torch.cat([x.active, seen.to(x.active.dtype)], 1))
        x = x._replace(active=self.transition(active).relu_(),
                       passive=self.transition(x.passive).relu_())
        return x._replace(active=self.processing(x))


@MODELS.register_module()
class EffSegMaskHead(BaseModule):
    """Class-agnostic masks of 112x112, computed where coarser ones are in doubt.

    Stage 0 is dense, on 14x14 cells. Three stages then split the cells that the refinement branch
    holds most in doubt, and freeze the others as passive cells, which the neighbors still read.
    4,208,872 parameters with the defaults.

    Args:
        in_channels: of the pyramid; with ``position_code`` a multiple of 4.
        query_channels: of the queries.
        num_convs: 3x3 convolutions of stage 0.
        strides: of the pyramid's levels that are read.
        finest_scale: RoIs of less than twice this side begin at the finest level.
        processing: config of what a sparse stage does with its cells, see :mod:`.processing`.
        budget: how many cells are split: ``dict(per_image=...)`` or ``dict(per_roi=...)`` of the
            highest logits, ``dict(threshold=...)`` those of a higher probability, ``None`` all.
        position_code: add a sine code of the cells' positions at stage 0, as the authors' code.
        reduce_features: narrow the pyramid's features first, as the paper's dense comparison.
        target: a cell's object target: ``'coverage'``, more than half of it covered, or
            ``'center'``, its center covered.
        segmentation_weights, refinement_weights: of the losses, stage by stage.

    Raises:
        ValueError: an argument is out of range.
    """

    class_agnostic = True

    def __init__(self,
                 *,
                 in_channels: int = 256,
                 query_channels: int = 256,
                 num_convs: int = 4,
                 strides: Sequence[int] = (4, 8, 16, 32),
                 finest_scale: int = 56,
                 processing: dict | None = None,
                 budget: dict | None = PUBLISHED_BUDGET,
                 position_code: bool = True,
                 reduce_features: bool = False,
                 target: str = 'coverage',
                 segmentation_weights: Sequence[float] = (0.25, 0.375, 0.375, 0.5),
                 refinement_weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if budget is not None and (len(budget) != 1 or next(iter(budget)) not in BUDGETS
                                   or next(iter(budget.values())) < 0):
            raise ValueError(f'EffSegMaskHead.budget must be None or have one key of {BUDGETS} and '
                             f'a value of at least 0, got {budget!r}')
        if position_code and in_channels % 4:
            raise ValueError('EffSegMaskHead.in_channels must be a multiple of 4 with '
                             f'position_code, got {in_channels!r}')
        if target not in TARGETS:
            raise ValueError(f'EffSegMaskHead.target must be one of {TARGETS}, got {target!r}')
        for name, weights in (('segmentation', segmentation_weights),
                              ('refinement', refinement_weights)):
            if len(weights) != 4 or min(weights) < 0:
                raise ValueError(f'EffSegMaskHead.{name}_weights must be four numbers of at least '
                                 f'0, got {weights!r}')
        self.strides, self.finest_scale = tuple(strides), finest_scale
        self.budget, self.target, self.position_code = budget, target, position_code
        self.weights = tuple(zip(segmentation_weights, refinement_weights, strict=True))
        self.fusion = QueryFusion(query_channels, in_channels)
        self.convs = nn.Sequential(*(
            ConvModule(in_channels, in_channels, 3, padding=1) for _ in range(num_convs)))
        self.segmentation = two_layers(in_channels, in_channels, 1)
        self.refinement = two_layers(in_channels, in_channels, 1)
        self.stages = nn.ModuleList(
            SparseStage(in_channels >> i, in_channels,
                        processing or dict(type='mmsparse.SemanticFusionModule'), reduce_features)
            for i in range(3))

    def look(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor, *,
             training: bool) -> list[Stage]:
        """What the four stages say.

        Args:
            feats: the pyramid ``[B, in_channels, H, W]``, finest level first.
            roi_feats: ``[R, in_channels, 14, 14]``.
            rois: float32 ``[R, 5]`` of :func:`.rois.safe_rois`, image by image.
            queries: ``[R, query_channels]``.
            training: whether the last stage's refinement logits, which nothing follows, are asked
                for.
        """
        feats = feats[:len(self.strides)]
        level = roi_levels(rois, len(feats), self.finest_scale)
        if self.position_code:
            code = sine_code(*roi_feats.shape[1:3], roi_feats.device)
            roi_feats = roi_feats + code.to(roi_feats.dtype)
        x = from_dense(self.convs(self.fusion(roi_feats, queries)))
        said = [Stage(self.segmentation(x.active)[:, 0], self.refinement(x.active)[:, 0], x.cells,
                      x.index.shape[1])]
        pyramid = pyramid_rows(feats, self.strides)
        for i, stage in enumerate(self.stages):
            keep = self._worth_a_look(said[-1], rois, len(feats[0]))
            x = stage(x, keep, pyramid, rois, (level - i - 1).clamp(min=0))
            asked = training or i + 1 < len(self.stages)
            said.append(Stage(
                stage.segmentation(x.active)[:, 0],
                stage.refinement(x.active)[:, 0] if asked else None, x.cells, x.index.shape[1]))
        return said

    def _worth_a_look(self, stage: Stage, rois: Tensor, images: int) -> Tensor | None:
        """Active cells to split, bool ``[N]``; ``None`` for all."""
        if self.budget is None:
            return None
        (kind, value), score = next(iter(self.budget.items())), stage.refinement.detach()
        if kind == 'threshold':
            return score.float().sigmoid() > value
        roi = stage.cells[:, 0]
        if kind == 'per_roi':
            return keep_best(score, roi, len(rois), value)
        return keep_best(score, rois[roi, 0].long(), images, value)

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor | None = None) -> Tensor:
        """Mask logits ``[R, 1, 112, 112]``, without gradients; arguments as :meth:`look`.

        ``labels`` are not looked at: the masks are of no class.
        """
        with torch.no_grad():
            return compose(self.look(feats, roi_feats, rois, queries, training=False), len(rois))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             truth: RoIMasks) -> dict[str, Tensor]:
        """Eight losses: binary cross entropy of both branches, mean over a stage's active cells.

        Args:
            feats, roi_feats, queries: as :meth:`look`.
            truth: RoIs and their masks. Without any, the losses are 0 and touch every parameter.
        """
        if not len(truth.rois):
            nothing = sum(p.sum() for p in self.parameters()) * 0 + queries.sum() * 0
            return {f'loss_mask_{branch}_{s}': nothing
                    for s in range(len(self.weights)) for branch in ('seg', 'ref')}
        losses = {}
        said = self.look(feats, roi_feats, truth.rois, queries, training=True)
        for s, (stage, (seg, ref)) in enumerate(zip(said, self.weights, strict=True)):
            covered = truth.coverage(stage.size)[tuple(stage.cells.T)]
            inside = (covered > 0.5).float()
            if self.target == 'center':
                centers = cell_centers(truth.rois, stage.cells, stage.size)
                inside = (truth.at(stage.cells[:, 0], centers) > 0.5).float()
            losses[f'loss_mask_seg_{s}'] = seg * bce(stage.segmentation, inside)
            losses[f'loss_mask_ref_{s}'] = ref * bce(stage.refinement, in_doubt(covered).float())
        return losses


def in_doubt(covered: Tensor) -> Tensor:
    """Which cells, of a coverage from 0 to 1, the mask covers in part: bool, same shape."""
    return (covered > TOLERANCE) & (covered < 1 - TOLERANCE)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy in float32; 0 for nothing."""
    total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction='sum')
    return total / max(len(logits), 1)


def compose(said: Sequence[Stage], count: int) -> Tensor:
    """Logits of the finest stage, of coarser ones interpolated where it is silent.

    Stage by stage: the map is doubled bilinearly, then the active cells' logits are written.

    Args:
        said: by the stages; the first holds every cell.
        count: ``R``.

    Returns:
        float32 ``[R, 1, size, size]``.
    """
    first = said[0]
    logits = first.segmentation.float().view(count, 1, first.size, first.size)
    for stage in said[1:]:
        logits = F.interpolate(
            logits, scale_factor=2, mode='bilinear') if count else logits.new_empty(
                0, 1, stage.size, stage.size)
        roi, row, column = stage.cells.unbind(1)
        logits[roi, 0, row, column] = stage.segmentation.float()
    return logits
