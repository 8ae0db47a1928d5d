"""DeepGlobe Land Cover: satellite pictures, 2448 x 2448 (Demir et al., CVPR Workshops 2018)."""
from __future__ import annotations

from typing import Any

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset


@DATASETS.register_module()
class DeepGlobeLandCoverDataset(CheckedSegDataset):
    """DeepGlobe Land Cover with the six classes that its mIoU counts.

    The seventh, unknown (clouds and others), is 255 = ignore in the labels.

    Args:
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.
    """

    TREE = """\
deepglobe/
  images/train/*.jpg   images/val/*.jpg
  labels/train/*.png   labels/val/*.png   (8-bit class numbers 0-5, 255 = unknown)"""

    METAINFO = dict(
        classes=('urban', 'agriculture', 'rangeland', 'forest', 'water', 'barren'),
        palette=[[0, 255, 255], [255, 255, 0], [255, 0, 255], [0, 255, 0], [0, 0, 255],
                 [255, 255, 255]])

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(img_suffix='.jpg', seg_map_suffix='.png', **kwargs)
