"""Context for the levels of a pyramid, from the coarsest to the finest.

Source: Specialize and Fuse (ICCV 2021), abstract: features of different levels are aggregated in
coarse-to-fine order. Text on the module's inside was not at hand: what is built here is a reading
of it, on the attention of Zhu et al., "Asymmetric Non-local Neural Networks for Semantic
Segmentation", ICCV 2019, which the paper compares with. Letters: ``B`` images, ``C`` channels, ``h,
w`` cells of a level, ``N`` chosen cells of one image, ``T`` tokens, ``L`` levels, coarse to fine.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleDict
from mmseg.models.decode_heads.ann_head import SelfAttentionBlock
from torch import Tensor

from mmsparse.registry import MODELS

from .cells import UP_MODES, gather_cells, level_ratios, parent_cells, up

KEY_POOL_SCALES = (1, 3, 6, 8)  # 110 tokens
KV_SOURCES = ('same', 'coarser')
CTX_FUSES = ('concat', 'add', 'none')


def check(name: str, key: str, value: object, allowed: Sequence) -> None:
    """Refuse a value that is not one of those allowed.

    Raises:
        ValueError: says key, value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f'{name}.{key} must be one of {tuple(allowed)}, got {value!r}')


class LevelContext(BaseModule):
    """mmseg's APNB, of which every cell of the query can be computed alone.

    Keys and queries are one projection to ``C / 2``, computed once; values are pooled before their
    projection, which is linear, so that the result is the same. All after the tokens is pointwise
    in the query. The last layer of the attention starts from zero, whatever ``init_cfg`` a parent
    has: mmseg's block sets it after its parents.

    Args:
        channels: ``C``, in and out; even.
        share: whether keys and queries share their projection (``False`` where the tokens come from
            another map: batch statistics of two maps do not mix).
        norm_cfg, act_cfg: as in mmcv's ``ConvModule``.
    """

    def __init__(self, channels: int, *, share: bool, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.attention = SelfAttentionBlock(
            channels, channels, channels // 2, channels, share_key_query=share, query_scale=1,
            key_pool_scales=KEY_POOL_SCALES, conv_cfg=None, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.bottleneck = ConvModule(2 * channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

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
            query = attention.key_project(x)
            keys, values = attention.key_downsample(query), attention.key_downsample(x)
        else:
            query = attention.query_project(x)
            keys, values = attention.key_project(source).flatten(2), source.flatten(2)
        if cells is not None:
            x, query = gather_cells(x, cells), gather_cells(query, cells)
        values = attention.value_project(values[:, :, None]).squeeze(2)
        similarity = query.flatten(2).transpose(1, 2) @ keys * attention.channels ** -0.5
        context = values @ similarity.softmax(2).transpose(1, 2)
        context = attention.out_project(context.view(*context.shape[:2], *x.shape[2:]))
        return self.bottleneck(torch.cat([context, x], 1))


@MODELS.register_module()
class CoarseToFineContext(BaseModule):
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
        ctx_fuse: how a level meets the one before: ``'concat'``, ``'add'`` (``ConvBNReLU(X(l) +
            up(P(l - 1)))``), or ``'none'``: each level on its own.
        ctx_up: ``'nearest'`` or ``'bilinear'``.
        ctx_levels: strides of the levels that have a ``Ctx``; all by default.
        detach_coarse: no gradient from a level to the one before.
        norm_cfg, act_cfg: as in mmcv's ``ConvModule``.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self,
                 *,
                 channels: int,
                 strides: Sequence[int],
                 kv_source: str = 'same',
                 ctx_fuse: str = 'concat',
                 ctx_up: str = 'nearest',
                 ctx_levels: Sequence[int] | None = None,
                 detach_coarse: bool = False,
                 norm_cfg: dict | None = None,
                 act_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        self.ratios = level_ratios(strides)
        check(name, 'kv_source', kv_source, KV_SOURCES)
        check(name, 'ctx_fuse', ctx_fuse, CTX_FUSES)
        check(name, 'ctx_up', ctx_up, UP_MODES)
        for stride in ctx_levels or ():
            check(name, 'ctx_levels', stride, strides)
        if channels < 2 or channels % 2:
            raise ValueError(f'{name}.channels must be even, got {channels!r}')
        self.strides = tuple(strides)
        self.kv_source = kv_source
        self.ctx_fuse = ctx_fuse
        self.ctx_up = ctx_up
        self.detach_coarse = detach_coarse
        cfg = dict(norm_cfg=norm_cfg or dict(type='BN'), act_cfg=act_cfg or dict(type='ReLU'))
        width = dict(concat=2 * channels, add=channels).get(ctx_fuse)
        self.merge = ModuleDict({f's{stride}': ConvModule(width, channels, 1, **cfg)
                                 for stride in strides[1:] if width})
        self.attend = ModuleDict({
            f's{stride}': LevelContext(channels, share=not self._reads_coarsest(level), **cfg)
            for level, stride in enumerate(strides)
            if stride in (strides if ctx_levels is None else ctx_levels)})

    def _reads_coarsest(self, level: int) -> bool:
        """Whether the tokens are the cells of ``P(1)``."""
        return self.kv_source == 'coarser' and level > 0

    def any_cell_alone(self, level: int) -> bool:
        """Whether a level's cells can be left out: no other cell and no finer level reads them.

        A level's own tokens need all of ``M(l)``, and so all of ``P(l - 1)``.
        """
        finest = level == len(self.strides) - 1
        return level > 0 and (finest or self.ctx_fuse == 'none' or self.kv_source == 'coarser'
                              or not any(f's{s}' in self.attend for s in self.strides[level + 1:]))

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
        key = f's{self.strides[level]}'
        attend = self.attend[key] if key in self.attend else None
        merging = key in self.merge
        own_tokens = attend is not None and not self._reads_coarsest(level)
        columns, size = x.shape[3], x.shape[2:]
        alone = cells is not None and not own_tokens
        if alone:
            x = gather_cells(x, cells)
        if merging:
            ratio = self.ratios[level - 1]
            coarse = coarse.detach() if self.detach_coarse else coarse
            coarse = (gather_cells(coarse, parent_cells(cells, columns, ratio)) if alone else
                      up(coarse, ratio, size, self.ctx_up))
            x = self.merge[key](torch.cat([x, coarse], 1) if self.ctx_fuse == 'concat' else
                                x + coarse)
        if attend is None:
            return x
        if own_tokens:
            return attend(x, cells=cells)
        return attend(x, source=coarsest.detach() if self.detach_coarse else coarsest)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``X`` of all levels to ``P`` of all levels, ``[B, C, h, w]``, coarse to fine."""
        refined: list[Tensor] = []
        for level, x in enumerate(features):
            refined.append(self.refine(level, x, refined[-1] if refined else None,
                                       refined[0] if refined else None))
        return refined
