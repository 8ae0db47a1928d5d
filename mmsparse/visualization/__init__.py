"""Pictures that explain a refinement, or a pyramid of outputs."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'panels': (
        'changes', 'liveliest_window', 'paint_classes', 'paint_mask', 'paint_score',
        'refinement_panels', 'refinement_strip'),
    'pyramid': ('LevelMaps', 'pyramid_panels'),
    'visualizer': ('RefinementVisualizer',),
})
