"""Labels of single pictures, found and read as the test set of a config has them.

Letters: ``H, W`` size of a picture in pixels.
"""
from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import DATASETS, TRANSFORMS

from mmsparse.labels import LabelCheck

from .pipeline import tested_dataset, transform_name


def dataset_class(dataset: ConfigDict) -> Any:
    """The class that a dataset's config names."""
    return DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type


def setting_of(dataset: ConfigDict, key: str) -> Any:
    """An argument of a dataset, or its default; ``None`` where it has neither."""
    if key in dataset:
        return dataset[key]
    for cls in dataset_class(dataset).__mro__:  # a subclass may hand on what it does not name
        parameter = inspect.signature(cls.__init__).parameters.get(key)
        if parameter is not None:
            return parameter.default
    return None


def find_label(config: Config, labels: Path, picture: Path) -> Path:
    """The label map of a picture.

    Args:
        labels: that file itself, or a folder. There it has the name that the test set gives it (of
            ``x_leftImg8bit.png`` with Cityscapes: ``x_gtFine_labelTrainIds.png``), else the
            picture's name with ``.png``.

    Raises:
        FileNotFoundError: there is none.
    """
    if not labels.is_dir():
        return labels
    dataset = tested_dataset(config)
    suffix, label_suffix = (setting_of(dataset, f'{key}_suffix') for key in ('img', 'seg_map'))
    names = [f'{picture.stem}.png']
    if suffix and label_suffix and picture.name.endswith(suffix):
        names.insert(0, picture.name.removesuffix(suffix) + label_suffix)
    for name in names:
        if (labels / name).is_file():
            return labels / name
    raise FileNotFoundError(f'the folder {labels} holds no label of {picture}: '
                            f'{" or ".join(dict.fromkeys(names))}')


def read_label(config: Config, path: Path, size: tuple[int, int], num_classes: int,
               ignore_index: int) -> np.ndarray:
    """A label map from a file, its numbers changed as the test set changes them.

    Args:
        path: of the file.
        size: ``(H, W)`` of its picture.
        num_classes, ignore_index: of the model.

    Returns:
        int64 ``[H, W]``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no label map of these classes and this size.
    """
    dataset = tested_dataset(config)
    steps = [step for step in dataset['pipeline']
             if transform_name(step['type']) == 'LoadAnnotations']
    load = TRANSFORMS.build(steps[0] if steps else dict(type='mmseg.LoadAnnotations'))
    classes = (dataset.get('metainfo') or {}).get('classes')
    meta = dict(seg_map_path=str(path),
                reduce_zero_label=bool(setting_of(dataset, 'reduce_zero_label')))
    loaded = load(dict(meta, seg_fields=[],
                       label_map=dataset_class(dataset).get_label_map(classes)))
    label = torch.from_numpy(loaded['gt_seg_map'].astype(np.int64))[None]
    return LabelCheck(num_classes, ignore_index)(label, size, meta).numpy()
