"""Metrics of what a refinement gains; they run in one pass with those of mmseg and mmdet."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
