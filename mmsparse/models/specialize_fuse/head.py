"""The decode head: a pyramid of class maps and unity maps, fused into one.

Source: Hsiao, Sun, Chen, Sun, "Specialize and Fuse: Pyramidal Output Representation for Semantic
Segmentation", ICCV 2021. Letters: ``B`` images, ``K`` classes, ``C`` channels, ``H, W`` size in
pixels, ``h, w`` cells of a level, ``N`` active cells of one image, ``L`` levels, coarse to fine.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleDict
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .cells import UP_MODES, done_cells, gather_cells, grid_size, level_ratios, scatter_cells, up
from .context import CoarseToFineContext, LevelContext, check
from .fusing import FUSE_SPACES, class_scores, fuse
from .losses import NORMALIZERS, class_loss, unity_loss
from .targets import (
    FINEST_TARGETS,
    IGNORED,
    RELABELINGS,
    is_unity,
    majority_targets,
    nearest_targets,
    pyramid_targets,
    relabeled,
    settled_cells,
    unity_counts,
)

OUTPUTS = ('pyramid', 'single')
CONTEXTS = ('c2f', 'none', 'apnb_finest', 'apnb_all')
CTX_DEFAULTS = dict(kv_source='same', ctx_fuse='concat', ctx_up='nearest', ctx_levels=None,
                    detach_coarse=False)
IN_PROJS = {'none': 0, '1x1': 1, '3x3': 3}
UNITY_HEADS = ('separate', 'joint')
NORMS = ('BN', 'SyncBN', 'BN2d')  # in evaluation a cell's result is its own alone

# What a level gives: class logits [B, K, h, w], of the levels that have them, and unity logits
# [B, 1, h, w] of those but the finest.
Pyramid = tuple[list[Tensor], list[Tensor]]


class FinalProjection(BaseModule):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution (supplement, "final projection")."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, norm_cfg: dict,
                 act_cfg: dict) -> None:
        super().__init__(dict(type='Normal', std=0.01, override=dict(name='conv')))
        self.hidden = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, h, w]`` to ``[B, out_channels, h, w]``."""
        return self.conv(self.hidden(x))


@MODELS.register_module()
class SpecializeFuseHead(BaseDecodeHead):
    """Class and unity maps of several strides; coarse levels take what is of one class.

    Training re-labels: a cell that a coarser level has got right is no longer asked of the finer
    ones, which specialize. Inference fuses: every pixel takes the coarsest cell that claims to be
    of one class. Papers and pages that were at hand leave much open; every such point is an
    argument, with the likeliest reading as its default (docs/specialize_and_fuse.md lists them).

    Backbone or neck must give maps of ``ceil(H / s)`` cells, as ResNets and HRNets do.

    Args:
        in_channels: of the input maps, concatenated at the size of the first; or of one map.
        channels: ``C`` of all features.
        num_classes: ``K``, at least 2.
        in_index: which maps of the backbone or neck; one number for one map.
        strides: of the levels, coarse to fine, each dividing the one before. The last is that of
            the first input map.
        output: ``'pyramid'``; ``'single'``: no unity maps, the finest level is the result and the
            others are auxiliary.
        relabel: ``'naive'``, ``'gt_unity'`` or ``'true_positive'``, see
            :func:`~.targets.settled_cells`.
        tp_require_class: a true positive needs the right class, too.
        unity_thr: probability from which a cell counts as unity, in training and inference.
        fuse_space: what is fused, see :func:`~.fusing.class_scores`.
        final_upsample: from the finest level to pixels, ``'bilinear'`` or ``'nearest'``.
        finest_target: ``'per_pixel'``, the finest logits enlarged, against the labels;
            ``'nearest'`` or ``'majority'``, a class per cell; ``'cell_rule'``, that of the other
            levels, with which mixed cells are learned nowhere.
        sem_weights: of the class losses, per level; 1 by default. 0 in a single output: the level
            has no classifier.
        unity_weights: of the unity losses, per level but the finest; 1 by default.
        normalize: of the losses, ``'valid'`` or ``'all'``, see :func:`~.losses.class_loss`.
        in_proj: from the input maps to ``channels``: a ``'1x1'`` or ``'3x3'`` convolution with norm
            and ReLU, or ``'none'``.
        proj_channels: hidden channels of the final projections; ``channels`` by default.
        unity_head: ``'separate'`` projections, or ``'joint'``: one more output of the classes'.
        context: ``'c2f'``, :class:`CoarseToFineContext`; ``'apnb_finest'`` or ``'apnb_all'``,
            independent attention on the finest or every level; ``'none'``.
        pool_after_context: with ``'apnb_finest'``, whether coarse features are pooled from the
            refined finest one.
        kv_source, ctx_fuse, ctx_up, ctx_levels, detach_coarse: of :class:`CoarseToFineContext`.
        sparse_eval: compute finer levels in evaluation only where no coarser cell is unity: the
            same result. ``active_share`` holds the share of the cells computed in the last batch,
            by stride.
        norm_cfg, act_cfg: of all layers, as in mmcv's ``ConvModule``.
        ignore_index: label that counts nowhere.
        align_corners, out_channels, sampler: as in mmseg; other values than the default are
            refused.

    Raises:
        ValueError: an argument is out of range, or two do not go together.
    """

    def __init__(self,
                 *,
                 in_channels: int | Sequence[int],
                 channels: int,
                 num_classes: int,
                 in_index: int | Sequence[int] = (0, 1, 2, 3),
                 strides: Sequence[int] = (32, 16, 8, 4),
                 output: str = 'pyramid',
                 relabel: str = 'true_positive',
                 tp_require_class: bool = False,
                 unity_thr: float = 0.5,
                 fuse_space: str = 'log_prob',
                 final_upsample: str = 'bilinear',
                 finest_target: str = 'per_pixel',
                 sem_weights: Sequence[float] | None = None,
                 unity_weights: Sequence[float] | None = None,
                 normalize: str = 'valid',
                 in_proj: str = '1x1',
                 proj_channels: int | None = None,
                 unity_head: str = 'separate',
                 context: str = 'c2f',
                 pool_after_context: bool = True,
                 kv_source: str = 'same',
                 ctx_fuse: str = 'concat',
                 ctx_up: str = 'nearest',
                 ctx_levels: Sequence[int] | None = None,
                 detach_coarse: bool = False,
                 sparse_eval: bool = False,
                 norm_cfg: dict | None = None,
                 act_cfg: dict | None = None,
                 ignore_index: int = 255,
                 align_corners: bool = False,
                 out_channels: int | None = None,
                 sampler: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        name = type(self).__name__
        for key, value, allowed in (
                ('output', output, OUTPUTS), ('relabel', relabel, RELABELINGS),
                ('fuse_space', fuse_space, FUSE_SPACES),
                ('final_upsample', final_upsample, UP_MODES),
                ('finest_target', finest_target, FINEST_TARGETS),
                ('normalize', normalize, NORMALIZERS), ('in_proj', in_proj, tuple(IN_PROJS)),
                ('unity_head', unity_head, UNITY_HEADS), ('context', context, CONTEXTS),
                ('align_corners', align_corners, (False,)), ('sampler', sampler, (None,)),
                ('out_channels', out_channels, (None, num_classes))):
            check(name, key, value, allowed)
        if num_classes < 2:
            raise ValueError(f'{name}.num_classes must be at least 2, got {num_classes!r}')
        knobs = dict(kv_source=kv_source, ctx_fuse=ctx_fuse, ctx_up=ctx_up, ctx_levels=ctx_levels,
                     detach_coarse=detach_coarse)
        changed = [key for key, value in knobs.items() if value != CTX_DEFAULTS[key]]
        if context != 'c2f' and changed:
            raise ValueError(f"{name}.{changed[0]} is of context='c2f' alone, got "
                             f'{knobs[changed[0]]!r} with context={context!r}')
        if not 0 < unity_thr < 1:
            raise ValueError(f'{name}.unity_thr must be in (0, 1), got {unity_thr!r}')
        norm_cfg, act_cfg = norm_cfg or dict(type='BN'), act_cfg or dict(type='ReLU')
        super().__init__(
            in_channels, channels, num_classes=num_classes, out_channels=num_classes,
            dropout_ratio=0, norm_cfg=norm_cfg, act_cfg=act_cfg, in_index=in_index,
            input_transform=None if isinstance(in_channels, int) else 'resize_concat',
            ignore_index=ignore_index, init_cfg=init_cfg)
        del self.conv_seg, self.loss_decode  # every level has its own
        if in_proj == 'none' and self.in_channels != channels:
            raise ValueError(f"{name}.channels must be those of the input with in_proj='none', "
                             f'{self.in_channels}, got {channels!r}')
        self.strides = tuple(strides)
        self.ratios = level_ratios(strides)
        self.output = output
        self.relabel = relabel
        self.tp_require_class = tp_require_class
        self.unity_thr = unity_thr
        self.fuse_space = fuse_space
        self.final_upsample = final_upsample
        self.finest_target = finest_target
        self.normalize = normalize
        self.sem_weights = self._weights('sem_weights', sem_weights, len(strides))
        self.unity_weights = self._weights('unity_weights', unity_weights, len(strides) - 1)
        if output == 'single' and relabel == 'true_positive':
            raise ValueError(f"{name}.relabel must be 'naive' or 'gt_unity' with output='single', "
                             f'which predicts no unity, got {relabel!r}')
        if 0 in self.sem_weights and (context != 'c2f' or ctx_fuse == 'none' or detach_coarse):
            raise ValueError(f"{name}.sem_weights may be zero only with context='c2f' and gradients"
                             ' to coarser levels: else some of their layers learn nothing; got '
                             f'{self.sem_weights}')
        self.sparse_eval = sparse_eval
        self.active_share: dict[int, float] = {}
        if sparse_eval:
            self._check_sparse(ctx_up)

        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        kernel = IN_PROJS[in_proj]
        self.in_proj = ConvModule(self.in_channels, channels, kernel, padding=kernel // 2,
                                  **cfg) if kernel else None
        first = context == 'apnb_finest' and pool_after_context
        self.input_context = LevelContext(channels, share=True, **cfg) if first else None
        if context == 'c2f':
            self.context = CoarseToFineContext(channels=channels, strides=strides, **knobs, **cfg)
        else:
            levels = dict(none=(), apnb_finest=() if first else self.strides[-1:],
                          apnb_all=self.strides)[context]
            self.context = CoarseToFineContext(channels=channels, strides=strides,
                                               ctx_fuse='none', ctx_levels=levels, **cfg)
        coarse = self.strides[:-1] if output == 'pyramid' else ()
        extra = int(unity_head == 'joint')
        hidden = proj_channels or channels
        self.sem = ModuleDict({
            f's{stride}': FinalProjection(
                channels, hidden, num_classes + extra * (stride in coarse), **cfg)
            for stride, weight in zip(strides, self.sem_weights, strict=True) if weight})
        self.unity = ModuleDict({
            f's{stride}': FinalProjection(channels, hidden, 1, **cfg)
            for stride in coarse if unity_head == 'separate'})

    def _weights(self, key: str, weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
        """One weight per level; positive, but for class losses of a single output."""
        weights = (1.0,) * count if weights is None else tuple(weights)
        single = self.output == 'single' and key == 'sem_weights'
        if len(weights) != count or min(weights, default=1) < 0 or (
                not single and 0 in weights) or (single and not weights[-1]):
            raise ValueError(
                f'{type(self).__name__}.{key} must be {count} positive numbers, coarse to fine'
                f'{", zero for levels without a classifier" if single else ""}, got {weights}')
        return weights

    def _check_sparse(self, ctx_up: str) -> None:
        name = f'{type(self).__name__}.sparse_eval'
        if self.output == 'single' or len(self.strides) == 1:
            raise ValueError(f'{name} needs unity maps: a pyramid of two levels or more')
        if ctx_up == 'bilinear':
            raise ValueError(f"{name} needs ctx_up='nearest': a bilinear one reads the neighbors "
                             'of a cell')
        if self.norm_cfg['type'] not in NORMS:
            raise ValueError(f'{name} needs a norm_cfg of type {NORMS}: other norms read all '
                             f'cells; got {self.norm_cfg["type"]!r}')

    # ---- network --------------------------------------------------------------------------------

    def level_features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """``X`` of all levels, ``[B, C, h, w]``: averages of the finest over each cell."""
        x = self._transform_inputs(inputs)
        if self.in_proj is not None:
            x = self.in_proj(x)
        if self.input_context is not None:
            x = self.input_context(x)
        finest = self.strides[-1]
        # with ceil_mode a border cell is the mean of what lies inside the image
        return [*(F.avg_pool2d(x, stride // finest, ceil_mode=True)
                  for stride in self.strides[:-1]), x]

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
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        self._check_grid(sem[-1], labels.shape[1:])
        classes, unity_targets = pyramid_targets(labels, self.strides, self.ignore_index)
        sizes = [target.shape[1:] for target in classes[1:]]
        right_class = dict(classes=classes[:-1], class_logits=sem[:-1])
        done = done_cells(
            settled_cells(self.relabel, unity_targets, unity, unity_thr=self.unity_thr,
                          **right_class if self.tp_require_class else {}), self.ratios, sizes)
        finest, sem_finest = self._finest_target(labels, classes[-1], sem[-1])
        if done:
            finest = finest.masked_fill(up(
                done[-1], self.strides[-1] if self.finest_target == 'per_pixel' else 1,
                finest.shape[1:]), self.ignore_index)
        targets = [*relabeled(classes[:-1], done, self.ignore_index), finest]
        losses = {}
        levels = [(stride, weight, target) for stride, weight, target in zip(
            self.strides, self.sem_weights, targets, strict=True) if weight]
        for (stride, weight, target), logits in zip(levels, [*sem[:-1], sem_finest], strict=True):
            losses[f'loss_sem_s{stride}'] = weight * class_loss(
                logits, target, self.ignore_index, self.normalize)
        if unity:
            for stride, weight, target, logits in zip(
                    self.strides, self.unity_weights, relabeled(unity_targets, done, IGNORED),
                    unity, strict=False):
                losses[f'loss_unity_s{stride}'] = weight * unity_loss(
                    logits, target, self.normalize)
        return losses | self._figures(outputs, unity_targets, labels)

    def _finest_target(self, labels: Tensor, by_rule: Tensor, logits: Tensor
                       ) -> tuple[Tensor, Tensor]:
        """Target ``[B, H, W]`` or ``[B, h, w]`` of the finest level, and logits of that size."""
        stride = self.strides[-1]
        if self.finest_target == 'per_pixel':
            return labels, up(logits.float(), stride, labels.shape[1:], 'bilinear')
        if self.finest_target == 'cell_rule':
            return by_rule, logits
        pick = nearest_targets if self.finest_target == 'nearest' else majority_targets
        return pick(labels, stride, self.ignore_index), logits

    @torch.no_grad()
    def _figures(self, outputs: Pyramid, unity_targets: Sequence[Tensor], labels: Tensor
                 ) -> dict[str, Tensor]:
        """What is logged beside the losses."""
        sem, unity = outputs
        positive = [is_unity(logits.float(), self.unity_thr) for logits in unity]
        ratios = self.ratios if unity else ()
        maps = [logits.argmax(1, keepdim=True) for logits in (sem if unity else sem[-1:])]
        target = nearest_targets(labels, self.strides[-1], self.ignore_index)
        right = fuse(maps, positive, ratios).squeeze(1) == target
        known = target != self.ignore_index
        figures = dict(acc_seg=_percent((right & known).sum(), known.sum()))
        for stride, cells, target in zip(self.strides, positive, unity_targets, strict=False):
            hit, true, claimed = unity_counts(cells.squeeze(1), target)
            figures[f'unity_recall_s{stride}'] = _percent(hit, true)
            figures[f'unity_precision_s{stride}'] = _percent(hit, claimed)
        done = done_cells(positive, ratios, [m.shape[2:] for m in maps[1:]])
        for stride, cells in zip(self.strides[1:], done, strict=False):
            figures[f'active_s{stride}'] = 100 * (~cells).float().mean()
        return figures

    # ---- inference ------------------------------------------------------------------------------

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: list[dict], test_cfg: dict
                ) -> Tensor:
        """Scores ``[B, K, H, W]`` of the size that mmseg asks for."""
        if self.sparse_eval and not (self.training or torch.compiler.is_exporting()):
            return self._to_pixels(self.fuse_active(inputs), batch_img_metas)
        return self.predict_by_feat(self.forward(inputs), batch_img_metas)

    def predict_by_feat(self, outputs: Pyramid, batch_img_metas: list[dict]) -> Tensor:
        """Fuse the pyramid at its finest stride, then enlarge: ``[B, K, H, W]``."""
        return self._to_pixels(self.fuse_levels(outputs), batch_img_metas)

    def fuse_levels(self, outputs: Pyramid) -> Tensor:
        """Scores of the fused map, float32 ``[B, K, h, w]`` of the finest level."""
        sem, unity = outputs
        maps = [class_scores(logits, self.fuse_space) for logits in (sem if unity else sem[-1:])]
        positive = [is_unity(logits.float(), self.unity_thr) for logits in unity]
        return fuse(maps, positive, self.ratios if unity else ())

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
        context = self.context
        coarsest = coarse = context.refine(0, features[0])
        sem, unity = self.classify(0, coarse)
        fused = class_scores(sem, self.fuse_space)
        done = is_unity(unity.float(), self.unity_thr)
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
            active = refined if alone else gather_cells(refined, cells)
            if level < len(features) - 1:
                coarse = scatter_cells(torch.zeros_like(x), cells, refined) if alone else refined
            sem, unity = self.classify(level, active)
            fused = scatter_cells(fused, cells, class_scores(sem, self.fuse_space))
            if unity is not None:
                done = scatter_cells(done, cells, is_unity(unity.float(), self.unity_thr))
        return fused

    def _to_pixels(self, fused: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Enlarge the fused map to the size that mmseg's heads choose."""
        meta = batch_img_metas[0]
        windowed = isinstance(meta['img_shape'], torch.Size)  # mmseg's slide mode
        size = meta['img_shape'] if windowed else meta.get('pad_shape', meta['img_shape'])
        self._check_grid(fused, size[:2])
        return up(fused, self.strides[-1], size[:2], self.final_upsample)

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
