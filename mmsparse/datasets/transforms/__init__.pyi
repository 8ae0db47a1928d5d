from .low_res import (
    KeepLowRes as KeepLowRes, LoadLowResLogits as LoadLowResLogits, LoadLRLogits as LoadLRLogits,
    PackRefineInputs as PackRefineInputs)
from .mask_refine import (
    ColorJitter as ColorJitter, KeepOriginal as KeepOriginal, LoadMasks as LoadMasks,
    PackMaskInputs as PackMaskInputs, PerturbMaskBoundary as PerturbMaskBoundary,
    RandomMaskCrop as RandomMaskCrop, perturb_mask as perturb_mask)
from .render import RenderScene as RenderScene
from .swiftnet import (
    LabelBoundaryWeight as LabelBoundaryWeight, PackWeightedSegInputs as PackWeightedSegInputs,
    RandomSquareCropAndScale as RandomSquareCropAndScale)
