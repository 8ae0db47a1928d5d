"""Data: built-in procedural scenes, CamVid, the datasets of SparseRefine's and CRM's papers."""
from .bdd100k import BDD100KDataset
from .camvid import CamVidDataset
from .cityscapes import CityscapesDataset
from .deepglobe import DeepGlobeLandCoverDataset
from .hrf import HRFDataset
from .isic import ISICDataset
from .layout import CheckedSegDataset
from .mask_refine import BIGDataset, SaliencyRefineDataset
from .scene_dataset import SceneDataset
from .scene_instances import SceneInstanceDataset
from .scenes import render_scene
from .transforms import (
    ColorJitter,
    KeepLowRes,
    KeepOriginal,
    LabelBoundaryWeight,
    LoadLowResLogits,
    LoadMasks,
    PackMaskInputs,
    PackRefineInputs,
    PackWeightedSegInputs,
    PerturbMaskBoundary,
    RandomMaskCrop,
    RandomSquareCropAndScale,
    RenderScene,
    perturb_mask,
)
from .voc import PascalVOCDataset

__all__ = [
    'BDD100KDataset', 'BIGDataset', 'CamVidDataset', 'CheckedSegDataset', 'CityscapesDataset',
    'ColorJitter', 'DeepGlobeLandCoverDataset', 'HRFDataset', 'ISICDataset', 'KeepLowRes',
    'KeepOriginal', 'LabelBoundaryWeight', 'LoadLowResLogits', 'LoadMasks', 'PackMaskInputs',
    'PackRefineInputs', 'PackWeightedSegInputs', 'PascalVOCDataset', 'PerturbMaskBoundary',
    'RandomMaskCrop', 'RandomSquareCropAndScale', 'RenderScene', 'SaliencyRefineDataset',
    'SceneDataset', 'SceneInstanceDataset', 'perturb_mask', 'render_scene'
]
