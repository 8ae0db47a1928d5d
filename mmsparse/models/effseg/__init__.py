"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from .baselines import QueryMaskHead, QueryPointHead, QueryRefineMaskHead
from .deformable_encoder import DeformableEncoder
from .fqdet import FQDetRoIHead
from .mask_head import EffSegMaskHead
from .processing import SPSMLP, SemanticFusionModule, SPSConvBlock, SPSDeformConvBlock
from .query_decoder import FQDetBBoxHead
from .refine_mask import RefineMaskHead
from .roi_head import EffSegCascadeRoIHead, EffSegRoIHead, EffSegSparseRoIHead
from .rpn_head import FQDetRPNHead

__all__ = [
    'DeformableEncoder',
    'EffSegCascadeRoIHead',
    'EffSegMaskHead',
    'EffSegRoIHead',
    'EffSegSparseRoIHead',
    'FQDetBBoxHead',
    'FQDetRPNHead',
    'FQDetRoIHead',
    'QueryMaskHead',
    'QueryPointHead',
    'QueryRefineMaskHead',
    'RefineMaskHead',
    'SPSConvBlock',
    'SPSDeformConvBlock',
    'SPSMLP',
    'SemanticFusionModule',
]
