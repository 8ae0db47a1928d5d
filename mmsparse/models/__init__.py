"""The published methods, a light base and test-time augmentation, each imported when used."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
