"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'baselines': ('QueryMaskHead', 'QueryPointHead', 'QueryRefineMaskHead'),
    'deformable_encoder': ('DeformableEncoder',),
    'fqdet': ('FQDetRoIHead',),
    'mask_head': ('EffSegMaskHead',),
    'processing': ('SPSMLP', 'SemanticFusionModule', 'SPSConvBlock', 'SPSDeformConvBlock'),
    'query_decoder': ('FQDetBBoxHead',),
    'refine_mask': ('RefineMaskHead',),
    'roi_head': ('EffSegCascadeRoIHead', 'EffSegRoIHead', 'EffSegSparseRoIHead'),
    'rpn_head': ('FQDetRPNHead',),
})
