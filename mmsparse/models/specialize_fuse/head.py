"""The decode head: a pyramid of class maps and unity maps, fused into one.

Source: Hsiao, Sun, Chen, Sun, "Specialize and Fuse: Pyramidal Output Representation for Semantic
Segmentation", ICCV 2021. Letters: ``B`` images, ``K`` classes, ``C`` channels, ``H, W`` size in
pixels, ``h, w`` cells of a level, ``N`` active cells of one image, ``L`` levels, coarse to fine.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleDict
from mmengine.registry import Registry
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.registry import MODELS, TASK_UTILS

from .cells import check, done_cells, gather_cells, grid_size, level_ratios, scatter_cells, up
from .fusing import fuse
from .targets import nearest_targets, unity_counts

UNITY_HEADS = ('separate', 'joint', None)
NORMS = ('BN', 'SyncBN', 'BN2d')  # in evaluation a cell's result is its own alone

# What a level gives: class logits [B, K, h, w], of the levels that have them, and unity logits
# [B, 1, h, w] of those but the finest.
Pyramid = tuple[list[Tensor], list[Tensor]]


class FinalProjection(BaseModule):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution (supplement, "final projection")."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, norm_cfg: dict
                 ) -> None:
        super().__init__(dict(type='Normal', std=0.01, override=dict(name='conv')))
        self.hidden = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg)
        self.conv = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, h, w]`` to ``[B, out_channels, h, w]``."""
        return self.conv(self.hidden(x))


@MODELS.register_module()
class SpecializeFuseHead(BaseDecodeHead):
    """Class and unity maps of several strides; coarse levels take what is of one class.

    Training re-labels: what a coarser level has got right is ignored in the targets of the finer
    ones, which specialize in the rest. Inference fuses: every pixel takes its class from the
    coarsest cell that is predicted to be of one class. The papers and pages at hand leave much
    open; every open point is an argument of the head or of one of its parts, with the likeliest
    reading as its default (docs/specialize_and_fuse.md lists them).

    The backbone or neck must give maps of ``ceil(H / s)`` cells, as ResNets and HRNets do.

    Parts are given as the config of a component, its ``type`` only where it is not the default;
    channels, strides and norms they get from the head.

    Args:
        in_channels: of the input maps, concatenated at the size of the first; or of one map.
        num_classes: ``K``, at least 2.
        channels: ``C`` of all features, to which a 1x1 convolution with norm and ReLU brings the
            input maps; ``None`` takes these as they are.
        in_index: which maps of the backbone or neck; one number for one map.
        strides: of the levels, coarse to fine, each dividing the one before. The last is that of
            the first input map.
        context: what levels know of each other: :class:`~.context.CoarseToFineContext` by default,
            :class:`~.context.FinestContext`, :class:`~.context.PooledLevels` (nothing).
        unity_head: ``'separate'`` projections for unity; ``'joint'``: one more output of those of
            the classes; ``None``: no unity maps, the finest level is the result and the others are
            auxiliary.
        proj_channels: hidden channels of the final projections; ``C`` by default.
        targets: :class:`~.targets.PyramidTargets`, what each level learns from.
        loss_decode: :class:`~.losses.PyramidLoss`, weights and mean of the losses.
        fusion: :class:`~.fusing.PyramidFusion`, from the pyramid to pixels. With its ``sparse``
            the attribute ``active_share`` holds the share of the cells computed in the last batch,
            by stride.
        norm_cfg: of all layers, as in mmcv's ``ConvModule``.
        ignore_index: label that counts nowhere.
        init_cfg: as in mmengine.

    Raises:
        ValueError: an argument is out of range, or two do not go together.
    """

    def __init__(self,
                 *,
                 in_channels: int | Sequence[int],
                 num_classes: int,
                 channels: int | None = None,
                 in_index: int | Sequence[int] = (0, 1, 2, 3),
                 strides: Sequence[int] = (32, 16, 8, 4),
                 context: dict | None = None,
                 unity_head: str | None = 'separate',
                 proj_channels: int | None = None,
                 targets: dict | None = None,
                 loss_decode: dict | None = None,
                 fusion: dict | None = None,
                 norm_cfg: dict | None = None,
                 ignore_index: int = 255,
                 init_cfg: dict | list[dict] | None = None) -> None:
        check(type(self).__name__, 'unity_head', unity_head, UNITY_HEADS)
        if num_classes < 2:
            raise ValueError(f'{type(self).__name__}.num_classes must be at least 2, got '
                             f'{num_classes!r}')
        width = in_channels if isinstance(in_channels, int) else sum(in_channels)
        super().__init__(
            in_channels, channels or width, num_classes=num_classes, out_channels=num_classes,
            dropout_ratio=0, norm_cfg=norm_cfg or dict(type='BN'), in_index=in_index,
            input_transform=None if isinstance(in_channels, int) else 'resize_concat',
            ignore_index=ignore_index, init_cfg=init_cfg)
        del self.conv_seg  # every level has its own
        self.strides = tuple(strides)
        self.ratios = level_ratios(strides)
        self.active_share: dict[int, float] = {}
        self.targets = self._part(TASK_UTILS, 'PyramidTargets', 'targets', targets)
        self.fusion = self._part(TASK_UTILS, 'PyramidFusion', 'fusion', fusion)
        self.loss_decode = self._part(
            MODELS, 'PyramidLoss', 'loss_decode', loss_decode, levels=len(self.strides),
            has_unity=unity_head is not None)
        self.in_proj = ConvModule(width, channels, 1, norm_cfg=self.norm_cfg) if channels else None
        self.context = self._part(
            MODELS, 'CoarseToFineContext', 'context', context, channels=self.channels,
            strides=self.strides, norm_cfg=self.norm_cfg)
        self._check_parts(unity_head)
        coarse = self.strides[:-1] if unity_head else ()
        joint = int(unity_head == 'joint')
        hidden = proj_channels or self.channels
        self.sem = ModuleDict({
            f's{stride}': FinalProjection(self.channels, hidden,
                                          num_classes + joint * (stride in coarse),
                                          norm_cfg=self.norm_cfg)
            for stride, weight in zip(self.strides, self.loss_decode.sem_weights, strict=True)
            if weight})
        self.unity = ModuleDict({
            f's{stride}': FinalProjection(self.channels, hidden, 1, norm_cfg=self.norm_cfg)
            for stride in coarse if not joint})

    def _part(self, registry: Registry, default: str, key: str, cfg: dict | None, **given: object
              ) -> Any:
        """Build a component, with settings of the head, which its config may not have."""
        cfg = {} if cfg is None else cfg
        if not isinstance(cfg, dict) or given.keys() & cfg.keys():
            raise ValueError(f'{type(self).__name__}.{key} must be the config of a component such '
                             f'as {default}, without {sorted(given)}, got {cfg!r}')
        return registry.build(dict(type=f'mmsparse.{default}') | dict(cfg) | given)

    def _check_parts(self, unity_head: str | None) -> None:
        """Refuse parts that do not go together."""
        name = type(self).__name__
        if unity_head is None and self.targets.relabel == 'true_positive':
            raise ValueError(f"{name}.targets.relabel must be 'naive' or 'gt_unity' with "
                             "unity_head=None, which predicts no unity, got 'true_positive'")
        if 0 in self.loss_decode.sem_weights and not self.context.learns_from_finer:
            raise ValueError(f'{name}.loss_decode.sem_weights may be zero only with a context '
                             'through which coarser levels get gradients: else some of their '
                             f'layers learn nothing; got {self.loss_decode.sem_weights}')
        if not self.fusion.sparse:
            return
        name += '.fusion.sparse'
        if unity_head is None or len(self.strides) == 1:
            raise ValueError(f'{name} needs unity maps: a pyramid of two levels or more')
        if not self.context.own_parent_alone:
            raise ValueError(f"{name} needs context.upsample='nearest': a bilinear one reads the "
                             'neighbors of a cell')
        if self.norm_cfg['type'] not in NORMS:
            raise ValueError(f'{name} needs a norm_cfg of type {NORMS}: other norms read all '
                             f'cells; got {self.norm_cfg["type"]!r}')

    # ---- network --------------------------------------------------------------------------------

    def level_features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """``X`` of all levels, ``[B, C, h, w]``."""
        x = self._transform_inputs(inputs)
        return self.context.levels(x if self.in_proj is None else self.in_proj(x))

    def classify(self, level: int, refined: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Class logits ``[B, K, h, w]`` and unity logits ``[B, 1, h, w]`` of a level that has them.

        Args:
            level: from 0, the coarsest.
            refined: ``P`` of the level or of some cells, ``[B, C, h, w]`` or ``[1, C, 1, N]``.
        """
        key = f's{self.strides[level]}'
        sem = self.sem[key](refined) if key in self.sem else None
        if key in self.unity:
            return sem, self.unity[key](refined)
        if sem is not None and sem.shape[1] > self.num_classes:
            return sem[:, :-1], sem[:, -1:]
        return sem, None

    def forward(self, inputs: Sequence[Tensor]) -> Pyramid:
        """Class logits and unity logits of the levels that have them, coarse to fine."""
        refined = self.context(self.level_features(inputs))
        sem, unity = zip(*(self.classify(level, x) for level, x in enumerate(refined)), strict=True)
        return [x for x in sem if x is not None], [x for x in unity if x is not None]

    # ---- training -------------------------------------------------------------------------------

    def loss_by_feat(self, outputs: Pyramid, batch_data_samples: list[SegDataSample]
                     ) -> dict[str, Tensor]:
        """Losses ``loss_sem_s32`` ..., ``loss_unity_s32`` ..., and figures in percent.

        ``acc_seg`` is that of the fused map, at the finest stride. Of every unity map
        ``unity_recall_s32``, ``unity_precision_s32`` ..., against the ground truth before
        re-labelling; ``active_s16`` ... is the share of a level's cells that no coarser cell
        settles in inference.
        """
        sem, unity = outputs
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # [B, H, W]
        self._check_grid(sem[-1], labels.shape[1:])
        claimed = [self.fusion.claimed(logits) for logits in unity]
        targets = self.targets(labels, self.strides, self.ignore_index, claimed, sem)
        if self.targets.finest == 'per_pixel':
            sem_at_targets = [*sem[:-1], up(sem[-1].float(), self.strides[-1], labels.shape[1:],
                                            'bilinear')]
        else:
            sem_at_targets = sem
        losses = self.loss_decode(sem_at_targets, unity, targets, self.strides, self.ignore_index)
        return losses | self._figures(sem, claimed, targets.unity_gt, labels)

    @torch.no_grad()
    def _figures(self, sem: Sequence[Tensor], claimed: Sequence[Tensor],
                 unity_gt: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """What is logged beside the losses."""
        ratios = self.ratios if claimed else ()
        maps = [logits.argmax(1, keepdim=True) for logits in (sem if claimed else sem[-1:])]
        target = nearest_targets(labels, self.strides[-1], self.ignore_index)
        right = fuse(maps, claimed, ratios).squeeze(1) == target
        labeled = target != self.ignore_index
        figures = dict(acc_seg=_percent((right & labeled).sum(), labeled.sum()))
        for stride, cells, gt in zip(self.strides, claimed, unity_gt, strict=False):
            hits, positives, claims = unity_counts(cells.squeeze(1), gt)
            figures[f'unity_recall_s{stride}'] = _percent(hits, positives)
            figures[f'unity_precision_s{stride}'] = _percent(hits, claims)
        done = done_cells(claimed, ratios, [m.shape[2:] for m in maps[1:]])
        for stride, cells in zip(self.strides[1:], done, strict=False):
            figures[f'active_s{stride}'] = 100 * (~cells).float().mean()
        return figures

    # ---- inference ------------------------------------------------------------------------------

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list[dict], test_cfg: dict
                ) -> Tensor:
        """Scores ``[B, K, H, W]`` of the size that mmseg asks for."""
        if self.fusion.sparse and not (self.training or torch.compiler.is_exporting()):
            return self._to_pixels(self.fuse_active(inputs), batch_img_metas)
        return self.predict_by_feat(self.forward(inputs), batch_img_metas)

    def predict_by_feat(self, outputs: Pyramid, batch_img_metas: list[dict]) -> Tensor:
        """Fuse the pyramid at its finest stride, then enlarge: ``[B, K, H, W]``."""
        return self._to_pixels(self.fuse_levels(outputs), batch_img_metas)

    def fuse_levels(self, outputs: Pyramid) -> Tensor:
        """Scores of the fused map, float32 ``[B, K, h, w]`` of the finest level."""
        sem, unity = outputs
        maps = [self.fusion.scores(logits) for logits in (sem if unity else sem[-1:])]
        claimed = [self.fusion.claimed(logits) for logits in unity]
        return fuse(maps, claimed, self.ratios if unity else ())

    def fuse_active(self, inputs: Sequence[Tensor]) -> Tensor:
        """:meth:`fuse_levels` of :meth:`forward`, computing only cells whose result is read."""
        features = self.level_features(inputs)
        images = len(features[0])
        self.active_share = dict.fromkeys(self.strides[1:], 0.0)
        return torch.cat([self._fuse_active([x[b:b + 1] for x in features], 1 / images)
                          for b in range(images)])

    def _fuse_active(self, features: Sequence[Tensor], share: float) -> Tensor:
        """One image, level by level; the number of active cells is waited for once per level.

        Args:
            features: ``X`` of all levels, ``[1, C, h, w]``.
            share: of the image in the mean ``active_share``.
        """
        context, fusion = self.context, self.fusion
        coarsest = coarse = context.refine(0, features[0])
        sem, unity = self.classify(0, coarse)
        fused, done = fusion.scores(sem), fusion.claimed(unity)  # [1, K, h, w], [1, 1, h, w]
        for level, x in enumerate(features[1:], 1):
            size = x.shape[2:]
            # contiguous: a map of one cell is enlarged without a copy, but is written to below
            fused, done = (up(m, self.ratios[level - 1], size).contiguous() for m in (fused, done))
            cells = (~done).flatten().nonzero().squeeze(1)
            self.active_share[self.strides[level]] += share * len(cells) / done.numel()
            if not len(cells):
                continue  # so it is for all finer levels
            alone = context.any_cell_alone(level)
            refined = context.refine(level, x, coarse, coarsest, cells if alone else None)
            active = refined if alone else gather_cells(refined, cells)  # [1, C, 1, N]
            if level < len(features) - 1:
                coarse = scatter_cells(torch.zeros_like(x), cells, refined) if alone else refined
            sem, unity = self.classify(level, active)
            fused = scatter_cells(fused, cells, fusion.scores(sem))
            if unity is not None:
                done = scatter_cells(done, cells, fusion.claimed(unity))
        return fused

    def _to_pixels(self, fused: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Enlarge the fused map to the size that mmseg's heads choose."""
        meta = batch_img_metas[0]
        windowed = isinstance(meta['img_shape'], torch.Size)  # mmseg's slide mode
        size = meta['img_shape'] if windowed else meta.get('pad_shape', meta['img_shape'])
        self._check_grid(fused, size[:2])
        return up(fused, self.strides[-1], size[:2], self.fusion.upsample)

    def _check_grid(self, finest: Tensor, size: Sequence[int]) -> None:
        """The finest level must cover the image, and no more."""
        expected = grid_size(size, self.strides[-1])
        if tuple(finest.shape[2:]) != expected:
            raise ValueError(
                f'{type(self).__name__} of finest stride {self.strides[-1]} needs a first input '
                f'map of {expected[0]}x{expected[1]} cells for an image of {size[0]}x{size[1]}, '
                f'got {finest.shape[2]}x{finest.shape[3]}')


def _percent(part: Tensor, whole: Tensor) -> Tensor:
    """Share of the cells in percent; 0 where there are none."""
    return 100 * part / whole.clamp(min=1)
