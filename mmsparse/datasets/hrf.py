"""HRF: photographs of the retina, 3504 x 2336 (Budai et al., Int. J. Biomedical Imaging 2013)."""
from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmsparse.registry import DATASETS

from .layout import CheckedSegDataset


@DATASETS.register_module()
class HRFDataset(CheckedSegDataset):
    """HRF with arteries and veins, fine to the pixel.

    Of each number there are three photographs: of a healthy eye, of one with glaucoma and of one
    with diabetic retinopathy.

    Args:
        numbers: those of the photographs to take, ``NN`` of ``NN_h.jpg``; ``None`` takes all.
        img_suffix, seg_map_suffix: of files that were converted.
        **kwargs: ``data_root``, ``data_prefix``, ``pipeline`` ... of mmseg's ``BaseSegDataset``.

    Raises:
        FileNotFoundError: folders or files are missing, or there is no photograph of a number.
    """

    TREE = """\
hrf/
  images/NN_{h,g,dr}.jpg
  labels/NN_{h,g,dr}.png   (8-bit: 0 background, 1 artery, 2 vein, 255 = unknown or beyond the
                            field of view)"""

    METAINFO = dict(classes=('background', 'artery', 'vein'),
                    palette=[[0, 0, 0], [230, 60, 50], [60, 110, 240]],
                    small_classes=('artery', 'vein'))

    def __init__(self, *, numbers: Sequence[int] | None = None, img_suffix: str = '.jpg',
                 seg_map_suffix: str = '.png', **kwargs: Any) -> None:
        self.numbers = None if numbers is None else tuple(numbers)
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per photograph of the numbers."""
        entries = super().load_data_list()
        if self.numbers is None:
            return entries
        found = [number_of(entry['img_path']) for entry in entries]
        if missing := sorted(set(self.numbers) - set(found)):
            self._fail(f'no photograph of the numbers {missing}; there are those of '
                       f'{sorted({n for n in found if n is not None})}')
        return [entry for entry, number in zip(entries, found, strict=True)
                if number in self.numbers]


def number_of(path: str) -> int | None:
    """``NN`` of ``.../NN_h.jpg``; ``None`` of another name."""
    number = osp.basename(path).split('_')[0]
    return int(number) if number.isdecimal() else None
