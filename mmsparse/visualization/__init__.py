"""Pictures that explain a refinement."""
from .panels import changes, liveliest_window, paint_classes, paint_mask, refinement_panels
from .visualizer import RefinementVisualizer

__all__ = [
    'RefinementVisualizer', 'changes', 'liveliest_window', 'paint_classes', 'paint_mask',
    'refinement_panels'
]
