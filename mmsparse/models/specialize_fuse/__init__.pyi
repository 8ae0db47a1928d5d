from .context import (
    CoarseToFineContext as CoarseToFineContext, FinestContext as FinestContext,
    PooledLevels as PooledLevels)
from .decoder import HRFusionDecoder as HRFusionDecoder
from .fusing import PyramidFusion as PyramidFusion
from .head import SpecializeFuseHead as SpecializeFuseHead
from .losses import PyramidLoss as PyramidLoss
from .targets import PyramidTargets as PyramidTargets
