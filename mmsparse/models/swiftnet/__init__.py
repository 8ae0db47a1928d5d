"""SwiftNet (CVPR 2019): an ImageNet encoder and a thin ladder decoder, one scale or a pyramid."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
