"""Data: built-in procedural scenes, and CamVid."""
from .camvid import CamVidDataset
from .scene_dataset import SceneDataset
from .scenes import render_scene
from .transforms import KeepLowRes, LoadLRLogits, PackRefineInputs, RenderScene

__all__ = [
    'CamVidDataset',
    'KeepLowRes',
    'LoadLRLogits',
    'PackRefineInputs',
    'RenderScene',
    'SceneDataset',
    'render_scene',
]
