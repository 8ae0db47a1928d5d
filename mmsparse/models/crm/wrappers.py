"""What the wrappers of a segmentor and of a detector share: original image, refiner, weights."""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.fileio import get
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmsparse.checkpoint import load_weights
from mmsparse.pictures import decode, orientation
from mmsparse.registry import MODELS

from .refiner import CRMRefiner

EXPAND = 0.25  # an object's crop grows by this share of its sides
MIN_AREA = 1024  # pixels: what is not larger is not refined


def original_image(meta: dict) -> Tensor:
    """The image as it was before the test pipeline, uint8 BGR ``[3, H, W]``.

    Taken from ``ori_img`` in the metainfo (an array; for pipelines fed with arrays), else read
    again from ``img_path``.

    An EXIF orientation is followed if the pipeline has done so. ``ori_shape`` tells, except where
    the turned picture has the size of the stored one.

    Raises:
        ValueError: there is neither, it has another size than ``ori_shape``, or whether the
            pipeline has turned it cannot be told.
    """
    image = meta.get('ori_img')
    if image is None:
        if not meta.get('img_path'):
            raise ValueError('the original image is needed: the metainfo has neither img_path nor '
                             'ori_img (name the latter in the meta_keys of the packing transform)')
        path = str(meta['img_path'])
        content = get(path)
        image = decode(content, path, 'color_ignore_orientation')
        if orientation(content) != 1:
            turned = decode(content, path, 'color')
            if turned.shape != image.shape:
                stored = image.shape[:2] == tuple(meta['ori_shape'][:2])
                image = image if stored else turned
            elif not np.array_equal(turned, image):
                raise ValueError(f'{path} has an EXIF orientation, {orientation(content)}, and '
                                 'whether the pipeline follows it cannot be told: add mmsparse.'
                                 'KeepOriginal after loading, and ori_img to the meta_keys of the '
                                 'packing transform')
    if tuple(image.shape[:2]) != tuple(meta['ori_shape'][:2]):
        raise ValueError(f'{meta.get("img_path")} has {image.shape[:2]} pixels, the sample says '
                         f'{tuple(meta["ori_shape"][:2])}')
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def build_refiner(refiner: dict, checkpoint: str | None) -> CRMRefiner:
    """The refiner in evaluation mode, with weights if a checkpoint is named."""
    built = MODELS.build(refiner)
    if checkpoint is not None:
        load_weights(built, checkpoint, 'refiner_checkpoint')
    return built.eval().requires_grad_(False)


def join_parts(wrapper: BaseModel, name: str, model: nn.Module, refiner: dict, *,
               checkpoint: str | None, refiner_checkpoint: str | None) -> None:
    """Give a wrapper its frozen model, as attribute ``name``, and ``refiner``, with their weights.

    A checkpoint of the wrapped model alone may be loaded later: the refiner then keeps the weights
    of ``refiner_checkpoint``; without, it has none, and the checkpoint does not fit.
    """
    setattr(wrapper, name, model.eval().requires_grad_(False))
    if checkpoint is not None:
        load_weights(model, checkpoint, f'{name}_checkpoint')
    wrapper.refiner = build_refiner(refiner, refiner_checkpoint)
    if refiner_checkpoint is not None:
        wrapper.register_load_state_dict_pre_hook(partial(load_model_alone, name))


def load_model_alone(name: str, wrapper: BaseModel, state_dict: dict, prefix: str, *_: Any) -> None:
    """State-dict hook: a checkpoint of the wrapped model alone is a part of the wrapper's."""
    model, refiner = f'{prefix}{name}.', f'{prefix}refiner.'
    keys = [key for key in state_dict if key.startswith(prefix)]
    if any(key.startswith((model, refiner)) for key in keys):
        return
    for key in keys:
        state_dict[model + key.removeprefix(prefix)] = state_dict.pop(key)
    state_dict.update(wrapper.refiner.state_dict(prefix=refiner))


def check_objects(name: str, expand: float, min_area: int) -> None:
    """Refuse negative settings of crops and objects."""
    if expand < 0 or min_area < 0:
        raise ValueError(f'{name}.expand and .min_area must not be negative, got {expand} and '
                         f'{min_area}')


def refuse_settings(name: str, **settings: Any) -> None:
    """Refuse settings that a wrapper does not have; its parts have theirs."""
    for key, value in settings.items():
        if value:
            raise ValueError(f'{name}.{key} must be None, got {value!r}; settings of the wrapped '
                             'model belong into its own config')
