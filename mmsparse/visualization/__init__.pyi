from .overlay import Shape as Shape, paint_over as paint_over, paint_shapes as paint_shapes
from .panels import (
    changes as changes, liveliest_window as liveliest_window, paint_classes as paint_classes,
    paint_mask as paint_mask, paint_score as paint_score, refinement_panels as refinement_panels,
    refinement_strip as refinement_strip)
from .page import SelectorScore as SelectorScore, html_page as html_page
from .pyramid import LevelMaps as LevelMaps, pyramid_panels as pyramid_panels
from .visualizer import RefinementVisualizer as RefinementVisualizer
