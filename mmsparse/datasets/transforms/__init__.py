"""Transforms of the data pipelines."""
from .low_res import KeepLowRes, LoadLRLogits, PackRefineInputs
from .render import RenderScene

__all__ = ['KeepLowRes', 'LoadLRLogits', 'PackRefineInputs', 'RenderScene']
