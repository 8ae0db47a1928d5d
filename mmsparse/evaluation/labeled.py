"""What the metrics on label maps share: labels that are checked, and what is ignored."""
from __future__ import annotations

from torch import Tensor

from mmsparse.labels import LabelCheck


class Labeled:
    """A part of metrics with an ``ignore_index``, where ``None`` stands for the model's.

    The model says its own in the metainfo of its results, as mmsparse's wrappers do; 255 if it does
    not.
    """

    dataset_meta: dict | None
    ignore_index: int | None
    _check: LabelCheck | None = None

    def num_classes(self) -> int | None:
        """Classes of the dataset, if it names them."""
        classes = (self.dataset_meta or {}).get('classes')
        return len(classes) if classes else None

    @property
    def ignored(self) -> int:
        """The label that counts nowhere, as :meth:`label` has found it."""
        return 255 if self.ignore_index is None else self.ignore_index

    def label(self, sample: dict, prediction: str) -> Tensor:
        """The label map of a result, ``[H, W]``.

        Args:
            sample: with ``gt_sem_seg``.
            prediction: field of the map that has the size of the picture.

        Raises:
            ValueError: it is no label map of the dataset's classes, or the prediction has another
                size.
        """
        if self._check is None:
            if self.ignore_index is None:
                self.ignore_index = sample.get('ignore_index', 255)
            self._check = LabelCheck(self.num_classes(), self.ignore_index)
        return self._check(sample['gt_sem_seg']['data'], sample[prediction]['data'].shape[-2:],
                           sample)
