from .context import CoarseToFineContext as CoarseToFineContext
from .decoder import HRFusionDecoder as HRFusionDecoder
from .head import SpecializeFuseHead as SpecializeFuseHead
