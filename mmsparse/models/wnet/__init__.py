"""W-Net (Galdran et al., 2020): a light base for refinement on photographs of the retina."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
