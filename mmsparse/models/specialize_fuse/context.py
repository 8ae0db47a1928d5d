"""Context for the levels of a pyramid, from the coarsest to the finest.

Source: Specialize and Fuse (ICCV 2021), abstract: features of different levels are aggregated in
coarse-to-fine order. The text on the inside of the module was not at hand: what is built here is
one reading of it, on the attention of Zhu et al., "Asymmetric Non-local Neural Networks for
Semantic Segmentation", ICCV 2019, which the paper compares with. Letters: ``B`` images, ``C``
channels, ``h, w`` cells of a level, ``N`` chosen cells of one image, ``T`` tokens, ``L`` levels,
coarse to fine.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleDict
from mmseg.models.decode_heads.ann_head import SelfAttentionBlock
from torch import Tensor

from mmsparse.registry import MODELS

from .cells import UP_MODES, check, gather_cells, level_ratios, parent_cells, up

KEY_POOL_SCALES = (1, 3, 6, 8)  # 110 tokens
KV_SOURCES = ('same', 'coarser')
MERGES = ('concat', 'add', 'none')
RELU = dict(type='ReLU')


class LevelContext(BaseModule):
    """Attention of all cells of a map to a few tokens: mmseg's APNB.

    Unlike mmseg's block, it can compute some cells alone: behind the tokens, every cell of the
    query goes its own way. Keys and queries are one projection to ``C / 2``, computed once. Values
    are pooled before their projection and not after; both are linear, so the result is the same.
    The last layer of the attention starts from zero, whatever ``init_cfg`` a parent has: mmseg's
    block sets it after its parents.

    Args:
        channels: ``C``, in and out; even.
        share: whether keys and queries share their projection (``False`` where the tokens come from
            another map: batch statistics of two maps do not mix).
        norm_cfg: as in mmcv's ``ConvModule``.
    """

    def __init__(self, channels: int, *, share: bool, norm_cfg: dict) -> None:
        super().__init__()
        self.attention = SelfAttentionBlock(
            channels, channels, channels // 2, channels, share_key_query=share, query_scale=1,
            key_pool_scales=KEY_POOL_SCALES, conv_cfg=None, norm_cfg=norm_cfg, act_cfg=RELU)
        self.bottleneck = ConvModule(2 * channels, channels, 1, norm_cfg=norm_cfg)

    def forward(self, x: Tensor, cells: Tensor | None = None, source: Tensor | None = None
                ) -> Tensor:
        """Refine a map, or some of its cells.

        Args:
            x: ``[B, C, h, w]``.
            cells: int64 ``[N]`` of the one image; without, all.
            source: ``[B, C, h', w']`` whose cells are the tokens; without, ``x`` pooled to 110.

        Returns:
            ``[B, C, h, w]``, or ``[1, C, 1, N]``.
        """
        attention = self.attention
        if source is None:
            query = attention.key_project(x)  # [B, C/2, h, w]
            keys, values = attention.key_downsample(query), attention.key_downsample(x)  # [B, ., T]
        else:
            query = attention.query_project(x)
            keys, values = attention.key_project(source).flatten(2), source.flatten(2)
        if cells is not None:
            x, query = gather_cells(x, cells), gather_cells(query, cells)
        values = attention.value_project(values[:, :, None]).squeeze(2)  # [B, C/2, T]
        # [B, h * w, T]
        similarity = query.flatten(2).transpose(1, 2) @ keys * attention.channels ** -0.5
        context = values @ similarity.softmax(2).transpose(1, 2)  # [B, C/2, h * w]
        context = attention.out_project(context.view(*context.shape[:2], *x.shape[2:]))
        return self.bottleneck(torch.cat([context, x], 1))


@MODELS.register_module()
class PooledLevels(BaseModule):
    """Features of every level, each cell the mean of the finest ones in it; no context (paper, F).

    Args:
        channels: ``C`` of all features.
        strides: of the levels, coarse to fine.
        norm_cfg: as in mmcv's ``ConvModule``; for the layers of subclasses.
        init_cfg: as in mmengine.

    Attributes:
        ratios: of :func:`~.cells.level_ratios`.
        own_parent_alone: whether a cell reads no cell of the level before but its own parent.
        learns_from_finer: whether each layer gets gradients from the loss of the finest level.
    """

    own_parent_alone = learns_from_finer = True

    def __init__(self, *, channels: int, strides: Sequence[int], norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.channels = channels
        self.strides = tuple(strides)
        self.ratios = level_ratios(strides)
        self.norm_cfg = norm_cfg or dict(type='BN')

    def levels(self, finest: Tensor) -> list[Tensor]:
        """``X`` of all levels, from that of the finest, ``[B, C, h, w]``."""
        # with ceil_mode a border cell is the mean of what lies inside the image
        return [*(F.avg_pool2d(finest, stride // self.strides[-1], ceil_mode=True)
                  for stride in self.strides[:-1]), finest]

    def any_cell_alone(self, level: int) -> bool:
        """Whether a level's cells can be left out: no other cell and no finer level reads them."""
        return level > 0

    def refine(self, level: int, x: Tensor, coarse: Tensor | None = None,
               coarsest: Tensor | None = None, cells: Tensor | None = None) -> Tensor:
        """``P`` of one level.

        Args:
            level: from 0, the coarsest.
            x: ``X`` of the level, ``[B, C, h, w]``.
            coarse: ``P`` of the level before; with ``cells``, right at their parents at least.
            coarsest: ``P(1)``.
            cells: int64 ``[N]`` of the one image; without, all.

        Returns:
            ``[B, C, h, w]``, or ``[1, C, 1, N]``.
        """
        return x if cells is None else gather_cells(x, cells)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``X`` of all levels to ``P`` of all levels, ``[B, C, h, w]``, coarse to fine."""
        refined: list[Tensor] = []
        for level, x in enumerate(features):
            refined.append(self.refine(level, x, refined[-1] if refined else None,
                                       refined[0] if refined else None))
        return refined


@MODELS.register_module()
class FinestContext(PooledLevels):
    """Attention on the finest features, of which the other levels are means (paper, B and G)."""

    def __init__(self, *, channels: int, strides: Sequence[int], norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(channels=channels, strides=strides, norm_cfg=norm_cfg, init_cfg=init_cfg)
        check_even(type(self).__name__, channels)
        self.attend = LevelContext(channels, share=True, norm_cfg=self.norm_cfg)

    def levels(self, finest: Tensor) -> list[Tensor]:
        """``X`` of all levels, from that of the finest, ``[B, C, h, w]``."""
        return super().levels(self.attend(finest))


@MODELS.register_module()
class CoarseToFineContext(PooledLevels):
    """Features of every level, refined from the coarsest to the finest.

    ``P(1) = Ctx_1(X(1))``, then ``M(l) = ConvBNReLU([X(l), up(P(l - 1))])`` and ``P(l) =
    Ctx_l(M(l))`` with :class:`LevelContext` as ``Ctx``. The defaults are one reading of the paper,
    which leaves all of it open.

    Args:
        channels: ``C`` of all features; even.
        strides: of the levels, coarse to fine.
        kv_source: the tokens are ``'same'``, the level's own map pooled to 110 cells, or
            ``'coarser'``, the cells of ``P(1)`` (256 for an image of 512x512), from the second
            level on.
        merge: how a level meets the one before: ``'concat'``, ``'add'`` (``ConvBNReLU(X(l) +
            up(P(l - 1)))``), or ``'none'``: each level on its own (paper, H).
        upsample: ``up``, ``'nearest'`` or ``'bilinear'``.
        attention_strides: of the levels that have a ``Ctx``; all by default.
        detach_coarse: no gradient from a level to the one before.
        norm_cfg: as in mmcv's ``ConvModule``.
        init_cfg: as in mmengine.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self,
                 *,
                 channels: int,
                 strides: Sequence[int],
                 kv_source: str = 'same',
                 merge: str = 'concat',
                 upsample: str = 'nearest',
                 attention_strides: Sequence[int] | None = None,
                 detach_coarse: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(channels=channels, strides=strides, norm_cfg=norm_cfg, init_cfg=init_cfg)
        name = type(self).__name__
        check(name, 'kv_source', kv_source, KV_SOURCES)
        check(name, 'merge', merge, MERGES)
        check(name, 'upsample', upsample, UP_MODES)
        for stride in attention_strides or ():
            check(name, 'attention_strides', stride, strides)
        check_even(name, channels)
        self.kv_source = kv_source
        self.merge_mode = merge
        self.upsample = upsample
        self.detach_coarse = detach_coarse
        self.own_parent_alone = upsample == 'nearest'
        self.learns_from_finer = merge != 'none' and not detach_coarse
        width = dict(concat=2 * channels, add=channels).get(merge)
        self.merge = ModuleDict({
            f's{stride}': ConvModule(width, channels, 1, norm_cfg=self.norm_cfg)
            for stride in strides[1:] if width})
        self.attend = ModuleDict({
            f's{stride}': LevelContext(channels, share=not self._reads_coarsest(level),
                                       norm_cfg=self.norm_cfg)
            for level, stride in enumerate(strides)
            if attention_strides is None or stride in attention_strides})

    def _reads_coarsest(self, level: int) -> bool:
        """Whether the tokens are the cells of ``P(1)``."""
        return self.kv_source == 'coarser' and level > 0

    def any_cell_alone(self, level: int) -> bool:
        """Whether a level's cells can be left out: no other cell and no finer level reads them.

        A level's own tokens need all of ``M(l)``, and so all of ``P(l - 1)``.
        """
        finest = level == len(self.strides) - 1
        return level > 0 and (finest or self.merge_mode == 'none' or self.kv_source == 'coarser'
                              or not any(f's{s}' in self.attend for s in self.strides[level + 1:]))

    def refine(self, level: int, x: Tensor, coarse: Tensor | None = None,
               coarsest: Tensor | None = None, cells: Tensor | None = None) -> Tensor:
        """``P`` of one level, as in :meth:`PooledLevels.refine`."""
        key = f's{self.strides[level]}'
        attend = self.attend[key] if key in self.attend else None
        tokens_of_level = attend is not None and not self._reads_coarsest(level)
        columns, size = x.shape[3], x.shape[2:]
        # tokens of the level need all of it, and are followed by the choice of cells
        alone = None if tokens_of_level else cells
        if alone is not None:
            x = gather_cells(x, alone)  # [1, C, 1, N]
        if key in self.merge:
            assert coarse is not None, 'all levels but the first have a coarser one'
            ratio = self.ratios[level - 1]
            coarse = coarse.detach() if self.detach_coarse else coarse
            coarse = (up(coarse, ratio, size, self.upsample) if alone is None else
                      gather_cells(coarse, parent_cells(alone, columns, ratio)))
            x = self.merge[key](torch.cat([x, coarse], 1) if self.merge_mode == 'concat' else
                                x + coarse)
        if attend is None:
            return x
        if tokens_of_level:
            return attend(x, cells=cells)
        assert coarsest is not None, 'all levels but the first have a coarsest one'
        return attend(x, source=coarsest.detach() if self.detach_coarse else coarsest)


def check_even(name: str, channels: int) -> None:
    """Refuse a number of channels of which attention has no half."""
    if channels < 2 or channels % 2:
        raise ValueError(f'{name}.channels must be even, got {channels!r}')
