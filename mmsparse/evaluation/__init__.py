"""Metrics that say what a refinement bought, beside mmseg's ``IoUMetric`` in one pass."""
from .boundary_accuracy import BoundaryAccuracyMetric, boundary_accuracy, boundary_radii
from .low_res import LowResIoUMetric
from .selector import SelectorMetric, selection_counts
from .size import IoUBySizeMetric

__all__ = [
    'BoundaryAccuracyMetric', 'IoUBySizeMetric', 'LowResIoUMetric', 'SelectorMetric',
    'boundary_accuracy', 'boundary_radii', 'selection_counts'
]
