"""Hooks, an optimizer wrapper, and the comparison of models."""
from .active_cells_hook import ActiveCellsHook
from .autocast import BFloat16OptimWrapper
from .channels_last_hook import ChannelsLastHook
from .comparison import Score, compare
from .progress import RichProgressHook, progress_display
from .refinement_hook import RefinementVisualizationHook

__all__ = [
    'ActiveCellsHook', 'BFloat16OptimWrapper', 'ChannelsLastHook', 'RefinementVisualizationHook',
    'RichProgressHook', 'Score', 'compare', 'progress_display'
]
