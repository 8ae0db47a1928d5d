"""Hooks, and the comparison of models."""
from .comparison import Score, compare
from .progress import RichProgressHook, progress_display
from .refinement_hook import RefinementVisualizationHook

__all__ = [
    'RefinementVisualizationHook', 'RichProgressHook', 'Score', 'compare', 'progress_display'
]
