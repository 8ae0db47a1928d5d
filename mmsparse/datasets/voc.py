"""Pascal VOC 2012: photographs of 20 kinds of objects (Everingham et al., IJCV 2015)."""
from __future__ import annotations

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.datasets import PascalVOCDataset as StockPascalVOC

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset


@DATASETS.register_module()
class PascalVOCDataset(CheckedSegDataset, StockPascalVOC):
    """mmseg's dataset of the same name, with its files checked.

    Args:
        ann_file: text file with one image name per line.
        img_suffix: suffix of the images.
        seg_map_suffix: suffix of the labels.
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.
    """

    TREE = """\
VOCdevkit/VOC2012/
  JPEGImages/*.jpg
  SegmentationClass/*.png      (names in train.txt and val.txt)
  SegmentationClassAug/*.png   (names in aug.txt: the further masks of SBD, by mmseg's converter)
  ImageSets/Segmentation/{train,val,aug}.txt"""

    def __init__(self,
                 ann_file: str,
                 img_suffix: str = '.jpg',
                 seg_map_suffix: str = '.png',
                 **kwargs: Any) -> None:
        # Past the stock constructor: all it adds is an assertion, without a message, that the
        # files are there, which also hits `lazy_init`.
        BaseSegDataset.__init__(self, ann_file=ann_file, img_suffix=img_suffix,
                                seg_map_suffix=seg_map_suffix, **kwargs)
