"""Metrics that say what a refinement bought, beside mmseg's ``IoUMetric`` in one pass."""
from .low_res import LowResIoUMetric
from .selector import SelectorMetric, selection_counts
from .size import IoUBySizeMetric

__all__ = ['IoUBySizeMetric', 'LowResIoUMetric', 'SelectorMetric', 'selection_counts']
