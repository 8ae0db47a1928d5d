"""A model from a config, its opinion about images, and refined masks.

Letters: ``H, W`` size of an image in pixels.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.engine.fusion import fuse_for_inference
from mmsparse.engine.loading import load_model
from mmsparse.engine.plain_datasets import plain_datasets
from mmsparse.masks import check_mask, read_mask
from mmsparse.models.crm.refiner import CRMRefiner
from mmsparse.pictures import AS_STORED, read_image

# What a test pipeline may load pictures and labels with; here the picture is given.
LOADERS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadAnnotations')

Image = str | Path | np.ndarray


def init_model(config: str | Path | Config,
               checkpoint: str | Path | None = None,
               device: str | None = None,
               cfg_options: dict | None = None,
               *,
               backend: str = 'torch',
               dtype: str = 'float32') -> BaseModel:
    """A segmentor for inference alone: batch norms are folded, images laid out channels last.

    The same results as the stock runner's, in less time; to train a model or to save its weights,
    build it by the runner.

    Args:
        config: a file, ``'mmsparse::sparserefine/NAME.py'`` (or ``mmseg::``) of an installed
            package, ``'mmsparse://NAME'`` of the zoo, or a config, which stays as it is.
        checkpoint: as for :func:`~mmsparse.engine.loading.load_model`.
        device: such as ``'cuda:0'``; ``None`` takes the first GPU, else the CPU.
        cfg_options: settings that override those of the config, by dotted name.
        backend, dtype: what computes, and in which precision:
            :func:`~mmsparse.engine.fusion.fuse_for_inference`.

    Returns:
        The model, with ``cfg`` and ``dataset_meta`` (names and colors of the classes: the
        checkpoint's, without one those of the config's test dataset).

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        CheckpointError: the checkpoint cannot be read, would run code, or does not fit the config
            (:func:`mmsparse.checkpoint.load_weights`).
        ValueError: neither the checkpoint nor a test set of the config says what the classes are;
            backend or dtype are unknown, or not for this model and device.
    """
    model = load_model(config, checkpoint, device or (
        'cuda:0' if torch.cuda.is_available() else 'cpu'), cfg_options)
    if not model.dataset_meta:
        dataset = tested_dataset(model.cfg)
        cls = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        model.dataset_meta = getattr(cls, 'METAINFO', {}) | dict(dataset.get('metainfo') or {})
    return fuse_for_inference(model, backend=backend, dtype=dtype)


def inference(model: BaseModel, images: Image | Sequence[Image]
              ) -> SegDataSample | list[SegDataSample]:
    """Label images of any sizes, one after the other.

    The test pipeline of the model's config is used without what loads pictures and labels.

    Args:
        model: from :func:`init_model`.
        images: one image or a list: path, URL, or uint8 BGR ``[H, W, 3]``.

    Returns:
        One sample for one image, else a list. A SparseRefine sample holds ``pred_sem_seg``,
        ``low_res_sem_seg``, ``selected``, and with ``model.test_cfg.keep_score=True`` in the config
        ``selection_score``.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no image, or an array has another shape.
        TypeError: an image is neither path nor uint8 array.
    """
    init_default_scope(model.cfg.get('default_scope', 'mmseg'))
    pipeline = Compose([
        dict(type='LoadImageFromNDArray'),
        *preparation(tested_dataset(model.cfg))])
    if isinstance(images, Sequence) and not isinstance(images, str):
        return [_infer(model, pipeline, image) for image in images]
    return _infer(model, pipeline, images)


def _infer(model: BaseModel, pipeline: Compose, image: Image) -> SegDataSample:
    picture = check_image(image) if isinstance(image, np.ndarray) else read_image(image)
    packed = pipeline(dict(img=picture))
    sample = packed['data_samples']
    sample.set_field(picture, 'ori_img', field_type='metainfo')  # RefinedSegmentor looks at it
    if not isinstance(image, np.ndarray):
        sample.set_metainfo(dict(img_path=str(image)))
    with torch.no_grad():
        sample, = model.test_step(pseudo_collate([packed]))
    sample.pop('ori_img', None)
    return sample


def refine_mask(image: Image, mask: Image, model: nn.Module) -> np.ndarray:
    """Refine one coarse mask of one object.

    Image and mask stay in main memory; only tiles of them travel to the model.

    Args:
        image: path, URL, or uint8 BGR ``[H, W, 3]``.
        mask: path of :func:`mmsparse.masks.read_mask`, or an array ``[H, W]``: bool, uint8 from 0
            to 255, or probabilities.
        model: a :class:`~mmsparse.models.crm.CRMRefiner`, from :func:`init_model`.

    Returns:
        Probabilities, float32 ``[H, W]``; more than 0.5 is the object.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file or array is no image or mask, or their sizes differ.
        TypeError: ``model`` refines no masks.
    """
    if not isinstance(model, CRMRefiner):
        raise TypeError(f'refine_mask needs a CRMRefiner, got {type(model).__name__}')
    image = check_image(image) if isinstance(image, np.ndarray) else read_image(image)
    mask = check_mask(mask) if isinstance(mask, np.ndarray) else read_mask(mask)
    if image.shape[:2] != mask.shape:
        hint = f'; {AS_STORED}' if image.shape[1::-1] == mask.shape else ''
        raise ValueError(f'the image has {list(image.shape[:2])} pixels, the mask '
                         f'{list(mask.shape)}{hint}')
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return model.refine(pixels[None], torch.from_numpy(mask)[None]).mask[0].numpy()


def check_image(image: np.ndarray) -> np.ndarray:
    """The array, if it can be an image; raises as :func:`inference`."""
    if image.dtype != np.uint8:
        raise TypeError(f'an image array must be uint8 (0 to 255), got {image.dtype}')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'an image array must be [H, W, 3], got {list(image.shape)}')
    return image


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
    """The steps of a dataset's pipeline without those that load pictures and labels."""
    return [step for step in dataset['pipeline'] if transform_name(step['type']) not in LOADERS]
