"""Pictures that explain a refinement."""
from .panels import (
    changes,
    liveliest_window,
    paint_classes,
    paint_mask,
    paint_score,
    refinement_panels,
    refinement_strip,
)
from .visualizer import RefinementVisualizer

__all__ = [
    'RefinementVisualizer', 'changes', 'liveliest_window', 'paint_classes', 'paint_mask',
    'paint_score', 'refinement_panels', 'refinement_strip'
]
