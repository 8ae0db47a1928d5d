"""Transforms of the data pipelines."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'low_res': ('KeepLowRes', 'LoadLRLogits', 'LoadLowResLogits', 'PackRefineInputs'),
    'mask_refine': (
        'ColorJitter', 'KeepOriginal', 'LoadMasks', 'PackMaskInputs', 'PerturbMaskBoundary',
        'RandomMaskCrop', 'perturb_mask'),
    'render': ('RenderScene',),
    'swiftnet': ('LabelBoundaryWeight', 'PackWeightedSegInputs', 'RandomSquareCropAndScale'),
})
