"""Transforms of the data pipelines."""
from .low_res import KeepLowRes, LoadLowResLogits, PackRefineInputs
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
    'LoadLowResLogits',
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
