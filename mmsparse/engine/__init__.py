"""Hooks, an optimizer wrapper, and the comparison of models."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
