"""EffSeg (2023): fine-grained instance masks by structure-preserving sparsity."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
