from .boundary_coco import (
    BoundaryCocoMetric as BoundaryCocoMetric, boundary_width as boundary_width,
    mask_boundary as mask_boundary)
from .boundary_lvis import BoundaryLVISMetric as BoundaryLVISMetric
from .boundary_mba import (
    BoundaryAccuracyMetric as BoundaryAccuracyMetric, boundary_accuracy as boundary_accuracy,
    boundary_radii as boundary_radii)
from .low_res import (
    LowResIoUMetric as LowResIoUMetric, SelectionLimitIoUMetric as SelectionLimitIoUMetric)
from .selector import SelectorMetric as SelectorMetric, selection_counts as selection_counts
from .size import IoUBySizeMetric as IoUBySizeMetric
from .thin import ThinStructureMetric as ThinStructureMetric
