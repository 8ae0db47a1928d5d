"""CamVid: road scenes from a car, 960 x 720 (Brostow et al., Pattern Recognition Letters 2009)."""
from __future__ import annotations

from typing import Any

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset


@DATASETS.register_module()
class CamVidDataset(CheckedSegDataset):
    """CamVid with the usual 11 classes.

    Args:
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.
    """

    TREE = """\
camvid/
  images/train/*.jpg   images/val/*.jpg
  labels/train/*.png   labels/val/*.png   (8-bit class numbers 0-10, 255 = ignore)"""

    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
                 'pedestrian', 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192],
                 [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0],
                 [0, 128, 192]],
        small_classes=('pole', 'sign', 'pedestrian', 'bicyclist'))

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(img_suffix='.jpg', seg_map_suffix='.png', **kwargs)
