"""Data: built-in procedural scenes, CamVid, the datasets of SparseRefine's and CRM's papers."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
