"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from .baselines import QueryMaskHead, QueryPointHead
from .mask_head import EffSegMaskHead
from .processing import SPSMLP, SemanticFusionModule, SPSConvBlock, SPSDeformConvBlock
from .queries import QueryFusion
from .roi_head import EffSegCascadeRoIHead, EffSegRoIHead, EffSegSparseRoIHead

__all__ = [
    'EffSegMaskHead',
    'QueryFusion',
    'SPSConvBlock',
    'SPSDeformConvBlock',
    'SPSMLP',
    'SemanticFusionModule',
]
