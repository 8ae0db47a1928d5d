"""CamVid: road scenes from a car, 960 x 720 (Brostow et al., Pattern Recognition Letters 2009)."""
from __future__ import annotations

import os.path as osp

from mmengine.fileio import isdir
from mmseg.datasets import BaseSegDataset

from mmsparse.registry import DATASETS

TREE = """\
camvid/
  images/train/*.jpg   images/val/*.jpg
  labels/train/*.png   labels/val/*.png   (8-bit class numbers 0-10, 255 = ignore)"""


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with the usual 11 classes.

    The shipped configs look in ``$MMSPARSE_DATA/camvid``, or in ``data/camvid`` if the variable
    is not set.

    Args:
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.

    Raises:
        FileNotFoundError: a folder is missing.
    """

    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
                 'pedestrian', 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192],
                 [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0],
                 [0, 128, 192]],
        small_classes=('pole', 'sign', 'pedestrian', 'bicyclist'))

    def __init__(self, **kwargs) -> None:
        super().__init__(img_suffix='.jpg', seg_map_suffix='.png', **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image, as in mmseg."""
        for folder in self.data_prefix.values():
            if folder and not isdir(folder, backend_args=self.backend_args):
                raise FileNotFoundError(
                    f'CamVid is not there: no folder {osp.abspath(folder)}. Set the environment '
                    f'variable MMSPARSE_DATA to the folder that holds\n{TREE}')
        return super().load_data_list()
