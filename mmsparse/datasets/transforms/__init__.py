"""Transforms of the data pipelines."""
from .low_res import KeepLowRes, LoadLRLogits, PackRefineInputs
from .render import RenderScene
from .swiftnet import LabelBoundaryWeight, PackWeightedSegInputs, RandomSquareCropAndScale

__all__ = [
    'KeepLowRes',
    'LabelBoundaryWeight',
    'LoadLRLogits',
    'PackRefineInputs',
    'PackWeightedSegInputs',
    'RandomSquareCropAndScale',
    'RenderScene',
]
