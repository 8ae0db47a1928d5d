"""Images with object masks: the sets that CRM (CVPR 2022) trains on, and those in BIG's layout."""
from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset

SETS = {
    'DUTS-TR': ('DUTS-TR/DUTS-TR-Image', 'DUTS-TR/DUTS-TR-Mask'),
    'DUTS-TE': ('DUTS-TE/DUTS-TE-Image', 'DUTS-TE/DUTS-TE-Mask'),
    'ECSSD': ('ECSSD/images', 'ECSSD/ground_truth_mask'),
    'MSRA-10K': ('MSRA10K_Imgs_GT/Imgs', 'MSRA10K_Imgs_GT/Imgs'),
    'FSS-1000': ('fewshot_data', 'fewshot_data'),
}


class MaskDataset(CheckedSegDataset):
    """What the two data sets below share: one mask file, or two, for each image file."""

    METAINFO = dict(classes=('background', 'object'), palette=[[0, 0, 0], [255, 255, 255]])

    def _images(self, folder: str, suffix: str | tuple[str, ...]) -> list[str]:
        """The image files in the folder and below it, relative to it, sorted."""
        self._check_folder(folder)
        images = sorted(self._list(folder, suffix))
        if not images:
            self._fail(self._other_layout(folder, suffix))
        return images

    def _check_masks(self, kind: str, folder: str, suffix: str, entries: list[dict]) -> None:
        """Fail if a mask of the entries is missing."""
        self._check_folder(folder)
        self._check(f'{kind} mask', folder, suffix, (e[f'{kind}_mask_path'] for e in entries))


@DATASETS.register_module()
class SaliencyRefineDataset(MaskDataset):
    """Images with the mask of one salient object, from several public sets at once.

    CRM (CVPR 2022) trains on all five: 36,572 pairs. Source of the sets: DUTS (CVPR 2017), ECSSD
    (CVPR 2013), MSRA-10K (TPAMI 2015), FSS-1000 (CVPR 2020).

    Args:
        data_root: folder of the sets.
        sets: names of the five, or pairs ``(images, masks)`` of folders below ``data_root``, for
            images ``x/y.jpg`` with masks ``x/y.png``.
        **kwargs: ``pipeline``, ``indices`` ... of mmseg's ``BaseSegDataset``.

    Raises:
        FileNotFoundError: a set, or the mask of an image, is missing.
        ValueError: a set has another name.
    """

    TREE = """\
saliency/
  DUTS-TR/DUTS-TR-Image/*.jpg    DUTS-TR/DUTS-TR-Mask/*.png
  DUTS-TE/DUTS-TE-Image/*.jpg    DUTS-TE/DUTS-TE-Mask/*.png
  ECSSD/images/*.jpg             ECSSD/ground_truth_mask/*.png
  MSRA10K_Imgs_GT/Imgs/*.jpg     MSRA10K_Imgs_GT/Imgs/*.png
  fewshot_data/CLASS/*.jpg       fewshot_data/CLASS/*.png   (FSS-1000)"""

    def __init__(self, *, data_root: str, sets: Sequence[str | tuple[str, str]] = tuple(SETS),
                 **kwargs: Any) -> None:
        for name in sets:
            if name not in SETS if isinstance(name, str) else len(name) != 2:
                raise ValueError(f'SaliencyRefineDataset.sets must be names among {list(SETS)} or '
                                 f'pairs of folders, got {name!r}')
        self.sets = sets
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image: ``img_path``, ``gt_mask_path``; sets in order, sorted within."""
        entries = []
        for name in self.sets:
            images, masks = (osp.join(self.data_root, folder)
                             for folder in (SETS[name] if isinstance(name, str) else name))
            added = [dict(img_path=osp.join(images, image),
                          gt_mask_path=osp.join(masks, osp.splitext(image)[0] + '.png'))
                     for image in self._images(images, '.jpg')]
            self._check_masks('gt', masks, '.png', added)
            entries += added
        self._check_first(entries)
        return entries


@DATASETS.register_module()
class BIGDataset(MaskDataset):
    """Images with a true and a coarse mask each, in the layout of BIG (CascadePSP, CVPR 2020).

    ``NAME_im.jpg`` or ``.png``, ``NAME_gt.png`` beside it and ``NAME_seg.png``. The relabeled
    PASCAL VOC set of the same paper is laid out alike.

    Args:
        data_root: folder of the images.
        coarse_root: folder of the coarse masks, the images' own if not given.
        **kwargs: ``pipeline``, ``indices`` ... of mmseg's ``BaseSegDataset``.

    Raises:
        FileNotFoundError: images or masks are missing.
    """

    TREE = """\
big/
  val/*_im.jpg    val/*_gt.png    (images also *_im.png; 8-bit masks, 0 to 255)
  test/*_im.jpg   test/*_gt.png
  coarse/*_seg.png                (what a segmentor made of all of them)"""

    def __init__(self, *, data_root: str, coarse_root: str | None = None, **kwargs: Any) -> None:
        self.coarse_root = data_root if coarse_root is None else coarse_root
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image: ``img_path``, ``gt_mask_path``, ``coarse_mask_path``; sorted."""
        entries = []
        for image in self._images(self.data_root, ('_im.jpg', '_im.png')):
            name = image[:-len('_im.jpg')]
            entries.append(dict(
                img_path=osp.join(self.data_root, image),
                gt_mask_path=osp.join(self.data_root, f'{name}_gt.png'),
                coarse_mask_path=osp.join(self.coarse_root, f'{name}_seg.png')))
        self._check_masks('gt', self.data_root, '_gt.png', entries)
        self._check_masks('coarse', self.coarse_root, '_seg.png', entries)
        self._check_first(entries)
        return entries
