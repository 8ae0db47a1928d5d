"""How the test pipeline of a config prepares pictures that are already in memory."""
from __future__ import annotations

from mmengine.config import Config, ConfigDict

from .plain_datasets import plain_datasets

# What a test pipeline may load pictures and labels with; here the picture is given.
LOADERS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadAnnotations',
           'LoadPanopticAnnotations', 'RenderScene')


def transform_name(transform: str | type) -> str:
    """What a transform is called, without its scope; a class in a pure Python config."""
    return transform.rpartition('.')[2] if isinstance(transform, str) else transform.__name__


def tested_dataset(config: Config) -> ConfigDict:
    """The config of the test set, the first one where several are wrapped.

    Raises:
        ValueError: the config names no test set, or several that prepare images differently.
    """
    dataset = (config.get('test_dataloader') or {}).get('dataset')
    if dataset is None:
        raise ValueError('the config has no test_dataloader.dataset, whose pipeline prepares '
                         'the images')
    first, *others = plain_datasets(dataset)
    if any(preparation(other) != preparation(first) for other in others):
        raise ValueError('the test sets in test_dataloader.dataset have pipelines that differ in '
                         'more than loading: which of them prepares an image is not clear')
    return first


def preparation(dataset: ConfigDict) -> list[dict]:
    """The steps of a dataset's pipeline without those that load pictures and labels.

    Raises:
        ValueError: there is one that loads something else.
    """
    steps = [step for step in dataset['pipeline'] if transform_name(step['type']) not in LOADERS]
    for name in (transform_name(step['type']) for step in steps):
        if name.startswith('Load'):
            raise ValueError(f'the test pipeline loads pictures by {name}: here they are color '
                             'pictures of 8 bits')
    return steps


def follows_exif(config: Config) -> bool:
    """Whether the test pipeline turns pictures as EXIF says; mmdet's do unless told otherwise."""
    default = 'color' if config.get('default_scope') == 'mmdet' else 'color_ignore_orientation'
    return any(step.get('color_type', default) == 'color'
               for step in tested_dataset(config)['pipeline']
               if transform_name(step['type']) == 'LoadImageFromFile')
