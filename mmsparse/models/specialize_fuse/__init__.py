"""Specialize and Fuse (ICCV 2021): class and unity maps of several strides, fused into one."""
from .context import CoarseToFineContext
from .decoder import HRFusionDecoder
from .head import SpecializeFuseHead

__all__ = ['CoarseToFineContext', 'HRFusionDecoder', 'SpecializeFuseHead']
