"""Cityscapes: street scenes from a car, 2048 x 1024 (Cordts et al., CVPR 2016)."""
from __future__ import annotations

from mmseg.datasets import CityscapesDataset as StockCityscapes

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset

# What the paper calls small for Cityscapes are traffic light and rider (SparseRefine, supplement
# Table 2); the others here are as thin or as rare.
SMALL_CLASSES = ('pole', 'traffic light', 'traffic sign', 'person', 'rider', 'motorcycle',
                 'bicycle')


@DATASETS.register_module()
class CityscapesDataset(CheckedSegDataset, StockCityscapes):
    """mmseg's dataset of the same name, with its files checked; the same arguments."""

    TREE = """\
cityscapes/
  leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
  gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png   (by mmseg's converter)"""

    METAINFO = dict(**StockCityscapes.METAINFO, small_classes=SMALL_CLASSES)
