"""The datasets that a config names, out of their wrappers."""
from __future__ import annotations

from mmengine.config import ConfigDict


def plain_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The configs of the datasets inside wrappers, in order; that of a plain one alone.

    A wrapper holds ``dataset`` (``RepeatDataset``, ``ClassBalancedDataset``, mmseg's
    ``MultiImageMixDataset``) or a list of ``datasets`` (``ConcatDataset``); they may be nested.
    """
    if 'datasets' in dataset:
        inner = dataset['datasets']
    elif 'dataset' in dataset:
        inner = [dataset['dataset']]
    else:
        return [dataset]
    return [plain for part in inner for plain in plain_datasets(part)]
