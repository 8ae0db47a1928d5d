"""CRM (CVPR 2022): continuous refinement of any mask at any resolution."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
