"""Pictures that explain a refinement, or a pyramid of outputs."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
