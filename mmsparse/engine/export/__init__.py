"""Models as ONNX files, and the program that runs one where there is no torch."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
