"""Data: built-in procedural scenes, CamVid, and the datasets of the SparseRefine paper."""
from .bdd100k import BDD100KDataset
from .camvid import CamVidDataset
from .cityscapes import CityscapesDataset
from .deepglobe import DeepGlobeLandCoverDataset
from .isic import ISICDataset
from .layout import CheckedSegDataset
from .scene_dataset import SceneDataset
from .scenes import render_scene
from .transforms import (
    KeepLowRes,
    LabelBoundaryWeight,
    LoadLRLogits,
    PackRefineInputs,
    PackWeightedSegInputs,
    RandomSquareCropAndScale,
    RenderScene,
)
from .voc import PascalVOCDataset

__all__ = [
    'BDD100KDataset', 'CamVidDataset', 'CheckedSegDataset', 'CityscapesDataset',
    'DeepGlobeLandCoverDataset', 'ISICDataset', 'KeepLowRes', 'LabelBoundaryWeight',
    'LoadLRLogits', 'PackRefineInputs', 'PackWeightedSegInputs', 'PascalVOCDataset',
    'RandomSquareCropAndScale', 'RenderScene', 'SceneDataset', 'render_scene'
]
