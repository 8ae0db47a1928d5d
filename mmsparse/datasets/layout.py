"""Say which files are missing when a dataset is loaded, not when the first of them is opened."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterable
from typing import ClassVar, NoReturn

from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import isdir, isfile, list_dir_or_file
from mmseg.datasets import BaseSegDataset

from mmsparse.pictures import read_image


class CheckedSegDataset(BaseSegDataset):
    """An mmseg dataset that compares what is on disk with what it expects.

    Checked when the data list is loaded (with ``lazy_init``, that is ``full_init()``). Each folder
    is listed once. Only the first picture is opened, to refuse 16 bits per channel, which mmseg's
    loader would cut to 8 without a word. Labels are checked if ``data_prefix`` names
    ``seg_map_path``: a test set without labels leaves it out, as everywhere in mmseg.

    To check a stock dataset, inherit from this class and from the stock one, in this order.

    Attributes:
        TREE: the expected folders, as shown in errors and in ``docs/datasets.md``.
    """

    TREE: ClassVar[str]

    def load_data_list(self) -> list[dict]:
        """One entry per image, as in mmseg.

        Raises:
            FileNotFoundError: a folder, the split file, images or labels are missing, or a folder
                holds no file with the expected suffix.
            ValueError: ``data_prefix`` names no folder of images, or the first picture is none of 8
                bits per channel.
        """
        images = self.data_prefix.get('img_path')
        if not images:
            raise ValueError(f'{type(self).__name__}: data_prefix names no img_path, and data_root '
                             'is not set either')
        labels = self._label_folder()
        for folder in filter(None, (images, labels)):
            self._check_folder(folder)
        from_split = bool(self.ann_file) and not osp.isdir(self.ann_file)  # mmseg's rule
        if from_split and not isfile(self.ann_file, backend_args=self.backend_args):
            self._fail(f'no split file {_shown(self.ann_file)}')
        entries = super().load_data_list()
        if not entries:
            self._fail(f'{_shown(self.ann_file)} is empty' if from_split
                       else self._other_layout(images, self.img_suffix))
        if from_split:  # otherwise the names come from listing the images
            self._check('image', images, self.img_suffix, (e['img_path'] for e in entries))
        if labels:
            self._check('label', labels, self.seg_map_suffix,
                        (e['seg_map_path'] for e in entries))
        self._check_first(entries)
        return entries

    def _check_first(self, entries: list[dict]) -> None:
        """Fail if the first picture is none that the pipeline's loader takes as it is."""
        if any(isinstance(step, LoadImageFromFile) and step.color_type.startswith('color')
               for step in self.pipeline.transforms):
            read_image(entries[0]['img_path'], self.backend_args)

    def _label_folder(self) -> str | None:
        """The folder of labels; None if ``data_prefix`` does not name it."""
        folder = self.data_prefix.get('seg_map_path')
        # mmseg joins an empty prefix, its default, with data_root.
        unnamed = not folder or (self.data_root is not None
                                 and osp.normpath(folder) == osp.normpath(self.data_root))
        return None if unnamed else folder

    def _check_folder(self, folder: str) -> None:
        """Fail if there is no such folder."""
        if not isdir(folder, backend_args=self.backend_args):
            self._fail(f'no folder {_shown(folder)}')

    def _check(self, kind: str, folder: str, suffix: str, expected: Iterable[str]) -> None:
        """Fail if one of the expected files is not in the folder."""
        present = {osp.join(folder, name) for name in self._list(folder, suffix)}
        if not present:
            self._fail(self._other_layout(folder, suffix))
        expected = list(expected)
        missing = [path for path in expected if path not in present]
        if missing:
            names = ', '.join(osp.relpath(path, folder) for path in missing[:3])
            self._fail(f'{len(missing)} of {len(expected)} {kind} files are not in '
                       f'{_shown(folder)}: {names}' + (', ...' if len(missing) > 3 else ''))

    def _other_layout(self, folder: str, suffix: str | tuple[str, ...]) -> str:
        """What to say of a folder without a file of this suffix."""
        other = next(iter(self._list(folder, None)), None)
        return (f'{_shown(folder)} holds no file that ends in {suffix!r}'
                + (f', but others, such as {other}' if other else ': it is empty'))

    def _list(self, folder: str, suffix: str | tuple[str, ...] | None) -> Iterable[str]:
        """Files in the folder and below it, relative to it."""
        return list_dir_or_file(folder, list_dir=False, suffix=suffix, recursive=True,
                                backend_args=self.backend_args)

    def _fail(self, problem: str) -> NoReturn:
        """Raise with the problem and the expected tree."""
        raise FileNotFoundError(
            f'{type(self).__name__}: {problem}. The shipped configs expect, in the folder that the '
            f'environment variable MMSPARSE_DATA names (data if it is not set):\n{self.TREE}')


def _shown(path: str) -> str:
    """A local path made absolute; an address as it is."""
    return path if '://' in path else osp.abspath(path)
