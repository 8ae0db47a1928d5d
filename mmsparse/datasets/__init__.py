"""Data: built-in procedural scenes, and CamVid."""
from .camvid import CamVidDataset
from .layout import CheckedSegDataset
from .scene_dataset import SceneDataset
from .scenes import render_scene
from .transforms import RenderScene

__all__ = ['CamVidDataset', 'CheckedSegDataset', 'RenderScene', 'SceneDataset', 'render_scene']
