"""EffSeg's mask head: a coarse mask of each object, refined where it is uncertain.

A grid of 14x14 cells is laid over every RoI. Stage 0 computes all cells. Each of the stages 1 to 3
splits the most uncertain cells in four and computes these children, the active cells; the others
become passive: nothing more is predicted for them, but active cells still read their features as
those of neighbors.

Source: Picron and Tuytelaars, "EffSeg: Efficient Fine-Grained Instance Segmentation using
Structure-Preserving Sparsity", 2023, sec. 3. Letters: ``B`` images, ``R`` RoIs, ``N`` active cells,
``W`` and ``C`` channels before and after a stage, ``s`` number of a stage, 0 to 3.
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

from mmsparse.losses import zero_loss
from mmsparse.registry import MODELS
from mmsparse.sparse import SPSDeformConv2d, SPSMap, from_dense, keep_best, select, split

from .queries import QueryFusion
from .rois import (
    PyramidRows,
    RoIMasks,
    cell_centers,
    pyramid_rows,
    roi_levels,
    sample_pyramid,
)

BUDGETS = ('per_image', 'per_roi', 'threshold')
PUBLISHED_BUDGET = dict(per_image=10_000)
TARGETS = ('coverage', 'center')
# A cell should be refined if the object covers it in part. The coverage of a wholly covered cell is
# an average that may round to 1 - 6e-8, for instance. The authors' code counts that as in part: 5 %
# of the cells that it wants refined at the last stage.
TOLERANCE = 1e-5
# Keeps the variance of what goes through a layer. PyTorch's own initialization, the authors',
# divides it by six at every layer and ReLU, of which seventeen follow stage 0: the last stage then
# begins with the same logits for all cells, and learns nothing until they differ (projects/masks).
KEEPING_VARIANCE = dict(type='Caffe2Xavier', layer=['Linear', 'SPSConv2d'])


class StageOutput(NamedTuple):
    """The predictions of one stage, for its active cells.

    Attributes:
        segmentation: ``[N]``, logits of the cell belonging to the object.
        refinement: ``[N]``, logits of the cell being covered in part, so that it should be split;
            empty at the last stage if not training.
        cells: int64 ``[N, 3]``: RoI, row, column.
        size: cells along a side of the stage's grid: 14, 28, 56 or 112.
    """

    segmentation: Tensor
    refinement: Tensor
    cells: Tensor
    size: int


def two_layers(channels_in: int, hidden: int, channels_out: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(channels_in, hidden), nn.ReLU(inplace=True),
                         nn.Linear(hidden, channels_out))


def predictions(x: SPSMap, segmentation: nn.Module, refinement: nn.Module | None) -> StageOutput:
    """Those of the active cells by the two layers of a stage."""
    needed = x.active.new_empty(0) if refinement is None else refinement(x.active)[:, 0]
    return StageOutput(segmentation(x.active)[:, 0], needed, x.cells, x.index.shape[1])


def sine_code(channels: int, size: int, device: torch.device | str) -> Tensor:
    """Sinusoidal position code of the cells of a RoI's grid.

    With ``n = channels / 4``, the ``n`` frequencies ``f_i = 10,000^(-i / n)`` and the cell's center
    ``x``, ``y``, from 0 at the grid's left and top to ``2 pi`` at its right and bottom, the code
    is ``sin(f_i x)``, ``cos(f_i x)``, ``sin(f_i y)``, ``cos(f_i y)``, ``n`` channels of each.

    Args:
        channels: a multiple of 4.
        size: cells along a side of the grid.
        device: of the result.

    Returns:
        float32 ``[channels, size, size]``.
    """
    count = channels // 4
    frequency = 10_000 ** -(torch.arange(count, device=device) / count)
    center = 2 * math.pi * (torch.arange(size, device=device) + 0.5) / size
    angle = frequency[:, None] * center  # [n, size]
    code = torch.cat([angle.sin(), angle.cos()])  # [2 n, size], the same for x and for y
    return torch.cat([code[:, None].expand(-1, size, -1), code[:, :, None].expand(-1, -1, size)])


class SparseStage(nn.Module):
    """Split cells in four, add pyramid features at the children, and process these.

    Args:
        width: ``W``, channels of the stage before; ``C`` is half of it.
        feature_channels: channels of the pyramid.
        processing: config of the module that processes the active cells, see :mod:`.processing`.
        reduce_features: bring the pyramid's features to ``W`` channels before they are fused.
    """

    def __init__(self, width: int, feature_channels: int, processing: dict,
                 reduce_features: bool) -> None:
        super().__init__()
        channels = width // 2
        # each of the four children has outputs of its own in the first layer; the second is shared
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
                level: Tensor, refine: bool) -> tuple[SPSMap, StageOutput]:
        """Compute the RoIs' grids at twice the size.

        Args:
            x: the grids of the stage before, ``W`` channels.
            keep: bool ``[N]``, which active cells to split; the others become passive. ``None``:
                split all.
            pyramid: the feature pyramid.
            rois: ``[R, 5]``.
            level: int64 ``[R]``, level of the pyramid that each RoI's cells are read from.
            refine: compute the logits of refinement.

        Returns:
            The grids, ``C`` channels, and what is predicted from them.
        """
        x = x if keep is None else select(x, keep)
        n, width = x.active.shape
        children = self.child_first(x.active).relu_().view(n, 4, width)
        x = split(x, self.child_second(children) + x.active[:, None])  # active: [4 N, W]
        roi = x.cells[:, 0]
        feats = self.reduce(sample_pyramid(
            pyramid, rois[roi, 0].long(), level[roi],
            cell_centers(rois, x.cells, x.index.shape[1])))
        active = x.active + self.fuse(torch.cat([x.active, feats.to(x.active.dtype)], 1))
        x = x._replace(active=self.transition(active).relu_(),
                       passive=self.transition(x.passive).relu_())
        x = x._replace(active=self.processing(x))
        return x, predictions(x, self.segmentation, self.refinement if refine else None)


@MODELS.register_module()
class EffSegMaskHead(BaseModule):
    """Class-agnostic masks of 112x112, computed finely where coarser masks are uncertain.

    Stage 0 computes all cells of a 14x14 grid. Three stages follow, on grids of 28, 56 and 112,
    each of which computes the children of the cells whose refinement logits are highest.
    4,208,872 parameters with the defaults.

    Args:
        in_channels: channels of the pyramid; with ``position_code`` a multiple of 4.
        query_channels: channels of the queries.
        num_convs: number of 3x3 convolutions of stage 0.
        strides: of the pyramid's levels that are read, finest first.
        finest_scale: ``finest`` of :func:`.rois.roi_levels`, which gives each RoI its level.
            Stage ``s`` reads the level ``s`` finer than that, or the finest.
        processing: config of the module that processes the cells of the stages 1 to 3, see
            :mod:`.processing`.
        budget: which cells are split at each stage. ``dict(per_image=n)``, ``dict(per_roi=n)``: the
            ``n`` of the highest refinement logits of an image, of a RoI; ``dict(threshold=p)``:
            those with a refinement probability above ``p``; ``None``: all.
        position_code: add :func:`sine_code` at stage 0, as the authors' code does.
        reduce_features: ``reduce_features`` of :class:`SparseStage`, as in the paper's dense
            comparison.
        target: when a cell belongs to the object in training: ``'coverage'``, if more than half of
            it is covered, or ``'center'``, if its center is.
        segmentation_weights, refinement_weights: weights of the losses of the four stages.
        init_cfg: as in mmengine; ``None`` for the authors' initialization, PyTorch's own.

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
                 init_cfg: dict | None = KEEPING_VARIANCE) -> None:
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

    def init_weights(self) -> None:
        """As ``init_cfg`` says, but deformable convolutions begin as plain ones."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, SPSDeformConv2d):
                module.init_offset()

    def run_stages(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                   *, training: bool) -> list[StageOutput]:
        """Compute the predictions of the four stages.

        Args:
            feats: the pyramid ``[B, in_channels, H, W]``, finest level first.
            roi_feats: ``[R, in_channels, 14, 14]``.
            rois: float32 ``[R, 5]``, of :func:`.rois.safe_rois`, image by image.
            queries: ``[R, query_channels]``.
            training: compute the last stage's refinement logits as well, for the loss; there is no
                stage after it to use them.
        """
        feats = feats[:len(self.strides)]
        level = roi_levels(rois, len(feats), self.finest_scale)
        if self.position_code:
            code = sine_code(roi_feats.shape[1], roi_feats.shape[2], roi_feats.device)
            roi_feats = roi_feats + code.to(roi_feats.dtype)
        x = from_dense(self.convs(self.fusion(roi_feats, queries)))
        outputs = [predictions(x, self.segmentation, self.refinement)]
        pyramid = pyramid_rows(feats, self.strides)
        for i, stage in enumerate(self.stages):
            keep = self._cells_to_split(outputs[-1], rois, len(feats[0]))
            last = i + 1 == len(self.stages)
            x, output = stage(x, keep, pyramid, rois, (level - i - 1).clamp(min=0),
                              refine=training or not last)
            outputs.append(output)
        return outputs

    def _cells_to_split(self, output: StageOutput, rois: Tensor, images: int) -> Tensor | None:
        """Which active cells the budget allows to split, bool ``[N]``; ``None`` for all."""
        if self.budget is None:
            return None
        (rule, value), score = next(iter(self.budget.items())), output.refinement.detach()
        if rule == 'threshold':
            return score.float().sigmoid() > value
        roi = output.cells[:, 0]
        if rule == 'per_roi':
            return keep_best(score, roi, len(rois), value)
        return keep_best(score, rois[roi, 0].long(), images, value)

    def forward(self, feats: Sequence[Tensor], roi_feats: Tensor, rois: Tensor, queries: Tensor,
                labels: Tensor | None = None) -> Tensor:
        """Mask logits ``[R, 1, 112, 112]``, without gradients; arguments as of :meth:`run_stages`.

        ``labels`` are not used: the masks do not depend on the class.
        """
        with torch.no_grad():
            return compose(
                self.run_stages(feats, roi_feats, rois, queries, training=False), len(rois))

    def loss(self, feats: Sequence[Tensor], roi_feats: Tensor, queries: Tensor,
             gt_masks: RoIMasks) -> dict[str, Tensor]:
        """Binary cross entropy of both branches at each stage, mean over its active cells.

        Args:
            feats, roi_feats, queries: as of :meth:`run_stages`.
            gt_masks: the RoIs and their masks. Without RoIs the losses are those of
                :func:`mmsparse.losses.zero_loss`.

        Returns:
            Eight losses, ``loss_mask_seg_0`` to ``_3`` and ``loss_mask_ref_0`` to ``_3``.
        """
        if not len(gt_masks.rois):
            zero = zero_loss([*self.parameters(), queries])
            return {f'loss_mask_{branch}_{s}': zero
                    for s in range(len(self.weights)) for branch in ('seg', 'ref')}
        losses = {}
        outputs = self.run_stages(feats, roi_feats, gt_masks.rois, queries, training=True)
        for s, (output, (seg, ref)) in enumerate(zip(outputs, self.weights, strict=True)):
            coverage = gt_masks.coverage(output.size)[tuple(output.cells.T)]  # [N]
            inside = (coverage > 0.5).float()
            if self.target == 'center':
                centers = cell_centers(gt_masks.rois, output.cells, output.size)
                inside = (gt_masks.at(output.cells[:, 0], centers) > 0.5).float()
            losses[f'loss_mask_seg_{s}'] = seg * bce(output.segmentation, inside)
            losses[f'loss_mask_ref_{s}'] = ref * bce(
                output.refinement, partly_covered(coverage).float())
        return losses


def partly_covered(coverage: Tensor) -> Tensor:
    """Which cells the object covers in part, and which should be refined therefore.

    Args:
        coverage: of the cells, from 0 to 1, any shape.

    Returns:
        bool, same shape.
    """
    return (coverage > TOLERANCE) & (coverage < 1 - TOLERANCE)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy in float32; 0 if there are no logits."""
    total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction='sum')
    return total / max(len(logits), 1)


def compose(outputs: Sequence[StageOutput], count: int) -> Tensor:
    """Make one mask of the predictions of all stages.

    It begins as the mask of stage 0. For each later stage it is interpolated to twice the size,
    then the logits of that stage's active cells are written into it.

    Args:
        outputs: of the stages, from stage 0 on, which has every cell.
        count: ``R``.

    Returns:
        Logits, float32 ``[R, 1, size, size]`` with the size of the last stage given.
    """
    first = outputs[0]
    logits = first.segmentation.float().view(count, 1, first.size, first.size)
    for output in outputs[1:]:
        logits = F.interpolate(
            logits, scale_factor=2, mode='bilinear') if count else logits.new_empty(
                0, 1, output.size, output.size)
        roi, row, column = output.cells.unbind(1)
        logits[roi, 0, row, column] = output.segmentation.float()
    return logits
