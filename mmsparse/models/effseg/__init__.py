"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from .mask_head import EffSegMaskHead
from .processing import SPSMLP, SemanticFusionModule, SPSConvBlock, SPSDeformConvBlock
from .queries import QueryFusion

__all__ = [
    'EffSegMaskHead',
    'QueryFusion',
    'SPSConvBlock',
    'SPSDeformConvBlock',
    'SPSMLP',
    'SemanticFusionModule',
]
