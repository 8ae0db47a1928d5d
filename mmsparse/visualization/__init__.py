"""Pictures that explain a refinement, or a pyramid of outputs."""
from .panels import (
    changes,
    liveliest_window,
    paint_classes,
    paint_mask,
    paint_score,
    refinement_panels,
    refinement_strip,
)
from .pyramid import LevelMaps, pyramid_panels
from .visualizer import RefinementVisualizer

__all__ = [
    'LevelMaps', 'RefinementVisualizer', 'changes', 'liveliest_window', 'paint_classes',
    'paint_mask', 'paint_score', 'pyramid_panels', 'refinement_panels', 'refinement_strip'
]
