"""Hooks, an optimizer wrapper, and the comparison of models."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'active_cells_hook': ('ActiveCellsHook',),
    'autocast': ('BFloat16OptimWrapper',),
    'channels_last_hook': ('ChannelsLastHook',),
    'comparison': ('Score', 'compare'),
    'progress': ('RichProgressHook', 'progress_display'),
    'refinement_hook': ('RefinementVisualizationHook',),
})
