from .baselines import (
    QueryMaskHead as QueryMaskHead, QueryPointHead as QueryPointHead,
    QueryRefineMaskHead as QueryRefineMaskHead)
from .deformable_encoder import DeformableEncoder as DeformableEncoder
from .fqdet import FQDetRoIHead as FQDetRoIHead
from .mask_head import EffSegMaskHead as EffSegMaskHead
from .processing import (
    SPSMLP as SPSMLP, SemanticFusionModule as SemanticFusionModule, SPSConvBlock as SPSConvBlock,
    SPSDeformConvBlock as SPSDeformConvBlock)
from .query_decoder import FQDetBBoxHead as FQDetBBoxHead
from .refine_mask import RefineMaskHead as RefineMaskHead
from .roi_head import (
    EffSegCascadeRoIHead as EffSegCascadeRoIHead, EffSegRoIHead as EffSegRoIHead,
    EffSegSparseRoIHead as EffSegSparseRoIHead)
from .rpn_head import FQDetRPNHead as FQDetRPNHead
