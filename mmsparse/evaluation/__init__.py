"""Metrics of what a refinement gains; they run in one pass with those of mmseg and mmdet."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'boundary_mba': ('BoundaryAccuracyMetric', 'boundary_accuracy', 'boundary_radii'),
    'boundary_coco': ('BoundaryCocoMetric', 'boundary_width', 'mask_boundary'),
    'boundary_lvis': ('BoundaryLVISMetric',),
    'low_res': ('LowResIoUMetric',),
    'selector': ('SelectorMetric', 'selection_counts'),
    'size': ('IoUBySizeMetric',),
    'thin': ('ThinStructureMetric',),
})
