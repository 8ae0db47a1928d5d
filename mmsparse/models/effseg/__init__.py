"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from .baselines import QueryMaskHead, QueryPointHead, QueryRefineMaskHead
from .mask_head import EffSegMaskHead
from .processing import SPSMLP, SemanticFusionModule, SPSConvBlock, SPSDeformConvBlock
from .refine_mask import RefineMaskHead
from .roi_head import EffSegCascadeRoIHead, EffSegRoIHead, EffSegSparseRoIHead

__all__ = [
    'EffSegCascadeRoIHead',
    'EffSegMaskHead',
    'EffSegRoIHead',
    'EffSegSparseRoIHead',
    'QueryMaskHead',
    'QueryPointHead',
    'QueryRefineMaskHead',
    'RefineMaskHead',
    'SPSConvBlock',
    'SPSDeformConvBlock',
    'SPSMLP',
    'SemanticFusionModule',
]
