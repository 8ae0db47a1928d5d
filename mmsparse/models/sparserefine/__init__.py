"""SparseRefine (ECCV 2024): refine a low-resolution prediction where it is uncertain."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
