"""Metrics of what a refinement gains; they run in one pass with those of mmseg and mmdet."""
from .boundary_accuracy import BoundaryAccuracyMetric, boundary_accuracy, boundary_radii
from .boundary_coco import BoundaryCocoMetric, boundary_width, mask_boundary
from .boundary_lvis import BoundaryLVISMetric
from .low_res import LowResIoUMetric
from .selector import SelectorMetric, selection_counts
from .size import IoUBySizeMetric
from .thin import ThinStructureMetric

__all__ = [
    'BoundaryAccuracyMetric', 'BoundaryCocoMetric', 'BoundaryLVISMetric', 'IoUBySizeMetric',
    'LowResIoUMetric', 'SelectorMetric', 'ThinStructureMetric', 'boundary_accuracy',
    'boundary_radii', 'boundary_width', 'mask_boundary', 'selection_counts'
]
