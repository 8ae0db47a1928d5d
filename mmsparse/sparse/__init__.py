"""The sparse 2-D floor: maps, layers, selection. spconv is imported at the first convolution."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
