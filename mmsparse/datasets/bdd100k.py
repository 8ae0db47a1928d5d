"""BDD100K, its 10,000 labeled pictures: street scenes, 1280 x 720 (Yu et al., CVPR 2020)."""
from __future__ import annotations

from mmseg.datasets import BDD100KDataset as StockBDD100K

from mmsparse.registry import DATASETS

from .cityscapes import SMALL_CLASSES
from .layout import CheckedSegDataset


@DATASETS.register_module()
class BDD100KDataset(CheckedSegDataset, StockBDD100K):
    """mmseg's dataset of the same name, with its files checked; the same arguments."""

    TREE = """\
bdd100k/
  images/10k/{train,val}/*.jpg
  labels/sem_seg/masks/{train,val}/*.png   (8-bit class numbers as in Cityscapes, 255 = ignore)"""

    METAINFO = dict(**StockBDD100K.METAINFO, small_classes=SMALL_CLASSES)
