"""What a label map may hold, and what is wrong with any other.

Letters: ``H, W`` size in pixels, ``K`` classes.
"""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn

from mmsparse.eager import eager
from mmsparse.hosts import ignore_index_of, last_head

REMEDY = ('labels of two classes are 0 and 1: write them again as '
          "`(labels > 127).astype('uint8')`")


def source_of(meta: Mapping[str, Any]) -> str:
    """How a data sample's labels are called in a message: by their file."""
    if meta.get('seg_map_path'):
        return f'labels {meta["seg_map_path"]}'
    return f'labels of {meta["img_path"]}' if meta.get('img_path') else 'labels'


class LabelCheck:
    """Refuses what is no label map; one object looks at all maps of a data set.

    A binary map of 0 and 255 is refused where 255 is no label. Where 255 is ignored such a map can
    be right (nothing but background beside what is ignored): it is warned about once, and
    :meth:`require_object` refuses a data set that holds no other.

    Args:
        num_classes: ``K``; ``None`` if not known.
        ignore_index: label of the pixels that do not count.
    """

    def __init__(self, num_classes: int | None, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.suspect: str | None = None  # the first map of 0 and 255 alone
        self.has_object = False

    def __call__(self, label: Tensor, size: tuple[int, int], meta: Mapping[str, Any]) -> Tensor:
        """The map, if it is one.

        Args:
            label: ``gt_sem_seg`` of a data sample, ``[1, H, W]``.
            size: ``(H, W)`` of the picture that it belongs to.
            meta: metainfo of the data sample, whose file is named in messages.

        Returns:
            ``[H, W]``.

        Raises:
            ValueError: it has several channels, numbers that are no integers, another size than
                the picture, or a value that is neither a class nor ignored.
        """
        source = source_of(meta)
        if label.ndim != 3 or label.shape[0] != 1:
            raise ValueError(f'{source}: a label map has one class number per pixel, this one has '
                             f'the shape {list(label.shape)}; save class numbers in one channel, '
                             'not colors')
        if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
            raise ValueError(f'{source}: class numbers must be integers, got {label.dtype}')
        if tuple(label.shape[1:]) != tuple(size):
            raise ValueError(f'{source}: the label map has {list(label.shape[1:])} pixels, its '
                             f'picture {list(size)}')
        self._check_values(label, source, meta)
        return label[0]

    def _check_values(self, label: Tensor, source: str, meta: Mapping[str, Any]) -> None:
        label = label.long()  # in uint8, 255 equals an ignore_index of -1
        wrong = (label < 0) & (label != self.ignore_index)
        if self.num_classes is not None:
            wrong |= (label >= self.num_classes) & (label != self.ignore_index)
        if wrong.any():
            values = label[wrong].unique().tolist()
            known = '0, 1, ...' if self.num_classes is None else f'0 to {self.num_classes - 1}'
            raise ValueError(
                f'{source}: holds {", ".join(map(str, values[:5]))}'
                f'{", ..." if len(values) > 5 else ""}; classes are {known}, and '
                f'{self.ignore_index} is ignored' + self._hint(values, meta))
        if self.num_classes == 2 and self.ignore_index == 255 and not self.has_object:
            self.has_object = bool((label == 1).any())
            if not self.has_object and self.suspect is None and set(
                    label.unique().tolist()) == {0, 255}:
                self.suspect = source
                warnings.warn(f'{source}: holds 0 and 255, and 255 is ignored. If it is meant as '
                              f'class 1: {REMEDY}', stacklevel=3)

    def _hint(self, values: list[int], meta: Mapping[str, Any]) -> str:
        """What the values that are no labels suggest."""
        if self.num_classes == 2 and values == [255]:
            return f'; {REMEDY}'
        if 255 in values:
            return (f'; if 255 comes from padding, pad with {self.ignore_index}: seg_pad_val of '
                    'the data preprocessor and of the transforms')
        if values == [self.num_classes] and not meta.get('reduce_zero_label'):
            return ('; if 0 is no class and the first one is 1, give the dataset '
                    'reduce_zero_label=True')
        return ''

    def require_object(self) -> None:
        """Refuse binary maps none of which held class 1.

        Raises:
            ValueError: one held 0 and 255 alone, and no map class 1.
        """
        if self.suspect is not None and not self.has_object:
            raise ValueError(f'no label is 1, but {self.suspect} holds 0 and 255, which is '
                             f'ignored; {REMEDY}')


class FirstLabels:
    """Checks the labels of a training's first batches, as a forward pre-hook.

    It stands before the data preprocessor: labels are still in main memory there and not padded,
    so that nothing waits for a GPU, in distributed training as elsewhere.

    Args:
        check: for the classes of the model.
        batches: how many are looked at; later ones cost nothing.
    """

    def __init__(self, check: LabelCheck, batches: int = 10) -> None:
        self.check = check
        self.left = batches

    @eager  # the counter would have a training step compiled again and again
    def __call__(self, preprocessor: nn.Module, args: tuple) -> None:
        """Look at the batch that the preprocessor is given.

        Raises:
            ValueError: as :class:`LabelCheck`.
        """
        if not preprocessor.training or not self.left:
            return
        self.left -= 1
        batch = args[0]
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            if 'gt_sem_seg' in sample:
                self.check(sample.gt_sem_seg.data, tuple(image.shape[1:]), sample.metainfo)


def check_first_labels(segmentor: BaseSegmentor) -> None:
    """Have the labels of a segmentor's first training batches checked."""
    num_classes = max(last_head(segmentor).num_classes, 2)  # one sigmoid tells two classes apart
    segmentor.data_preprocessor.register_forward_pre_hook(
        FirstLabels(LabelCheck(num_classes, ignore_index_of(segmentor))))
