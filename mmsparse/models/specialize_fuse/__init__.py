"""Specialize and Fuse (ICCV 2021): class and unity maps of several strides, fused into one."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
