"""Transforms of the data pipelines."""
from .low_res import KeepLowRes, LoadLRLogits, PackRefineInputs
from .mask_refine import (
    ColorJitter,
    KeepOriginal,
    LoadMasks,
    PackMaskInputs,
    PerturbMaskBoundary,
    RandomMaskCrop,
    perturb_mask,
)
from .render import RenderScene
from .swiftnet import LabelBoundaryWeight, PackWeightedSegInputs, RandomSquareCropAndScale

__all__ = [
    'ColorJitter',
    'KeepLowRes',
    'KeepOriginal',
    'LabelBoundaryWeight',
    'LoadLRLogits',
    'LoadMasks',
    'PackMaskInputs',
    'PackRefineInputs',
    'PackWeightedSegInputs',
    'PerturbMaskBoundary',
    'RandomMaskCrop',
    'RandomSquareCropAndScale',
    'RenderScene',
    'perturb_mask',
]
