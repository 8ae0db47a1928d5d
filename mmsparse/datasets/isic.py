"""ISIC 2018 task 1: outlines of skin lesions (Codella et al., arXiv 1902.03368)."""
from __future__ import annotations

from typing import Any

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset


@DATASETS.register_module()
class ISICDataset(CheckedSegDataset):
    """Skin and lesion in dermoscopic pictures of many sizes.

    Args:
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.
    """

    TREE = """\
isic/
  images/train/*.jpg   images/val/*.jpg   images/test/*.jpg
  labels/train/*.png   labels/val/*.png   labels/test/*.png   (8-bit: 0 background, 1 lesion)"""

    METAINFO = dict(classes=('background', 'lesion'), palette=[[0, 0, 0], [255, 255, 255]])

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(img_suffix='.jpg', seg_map_suffix='.png', **kwargs)
