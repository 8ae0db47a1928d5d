"""What mmseg's preprocessor makes of images, and the way back.

Normalization; padding, flips and sizes as the metainfo notes them. Letters: ``B`` images, ``H, W``
size of the batch.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.compat import turns_channels
from mmsparse.hosts import padding_of

if TYPE_CHECKING:
    from mmseg.models.data_preprocessor import SegDataPreProcessor

# What a preprocessor does to the values of pixels.
NORMALIZATION = 'mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr'
# Dimensions of [..., H, W] by mmcv's names.
FLIPS = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))


def shared_preprocessor(given: dict | None, parts: Mapping[str, dict | None]) -> dict | None:
    """Config of the preprocessor of a model around others, which all see the same images.

    Args:
        given: the model's own; a runner fills in ``data_preprocessor`` of the config's top level
            where the model has none.
        parts: those of the others by their keys; ``None``: has none.

    Returns:
        The model's own, else that of its parts.

    Raises:
        ValueError: two of them normalize differently, so that a part would see other values than
            it has learned from; or the model has none, and those of its parts differ.
    """
    configs = {'model': given, **{f'model.{name}': cfg for name, cfg in parts.items()}}
    known = [(name, cfg) for name, cfg in configs.items() if cfg is not None]
    if not known:
        return None
    first, chosen = known[0]
    for name, cfg in known[1:]:
        for key in NORMALIZATION if given is not None else {**chosen, **cfg}:
            a, b = chosen.get(key), cfg.get(key)
            if comparable(a) != comparable(b):
                raise ValueError(
                    f'{first}.data_preprocessor.{key} is {a}, but {name}.data_preprocessor.{key} '
                    f'is {b}, and both see the same images. (To a model without any a runner gives '
                    'data_preprocessor of the top level of the config.)')
    return chosen


def comparable(value: Any) -> Any:
    """A setting such that two spellings of one are equal: lists and tuples, unset and off."""
    return list(value) if isinstance(value, list | tuple) else value or None


def prepare(images: Tensor, preprocessor: SegDataPreProcessor) -> Tensor:
    """Images ``[B, 3, h, w]`` as loaded: in the channel order of the network, and normalized."""
    return normalize(images.flip(1) if turns_channels(preprocessor) else images, preprocessor)


def normalize(images: Tensor, preprocessor: SegDataPreProcessor) -> Tensor:
    """Float images ``[B, 3, h, w]``, less the mean and by the deviation that the config gives.

    Args:
        images: 0 to 255, any dtype, in the channel order of the network.
        preprocessor: on whose device the result is.
    """
    if not preprocessor._enable_normalize:
        return images.float()
    return (images.to(preprocessor.mean.device) - preprocessor.mean) / preprocessor.std


def batch_metas(inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
                ) -> list[dict[str, Any]]:
    """The samples' metainfo; without samples, that of images as they are.

    Args:
        inputs: ``[B, C, H, W]``, which are then neither padded nor flipped nor resized.
    """
    if data_samples:
        return [sample.metainfo for sample in data_samples]
    size = tuple(map(int, inputs.shape[2:]))  # tensors while torch traces
    return [dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)
            for _ in range(len(inputs))]


def plain_samples(inputs: Tensor) -> list[SegDataSample]:
    """Data samples of images ``[B, C, H, W]`` as they are."""
    return [SegDataSample(metainfo=meta) for meta in batch_metas(inputs)]


class Placement(NamedTuple):
    """Where an image lies in its batch, and what it was before.

    Attributes:
        rows, columns: of the batch that are not padding.
        flip: dimensions of ``[..., H, W]`` that were flipped; ``None`` if which is not told.
        ori_shape: ``(height, width)`` of the original; ``None`` if the metainfo does not tell.
    """

    rows: slice
    columns: slice
    flip: tuple[int, ...] | None
    ori_shape: tuple[int, int] | None

    @classmethod
    def of(cls, meta: Mapping[str, Any], inputs: Tensor) -> Placement:
        """As mmseg's metainfo of one image of ``inputs``, ``[B, C, H, W]``, says."""
        left, right, top, bottom = padding_of(meta)
        height, width = map(int, inputs.shape[2:])
        return cls(
            slice(top, height - bottom), slice(left, width - right),
            FLIPS.get(meta.get('flip_direction', '')) if meta.get('flip') else (),
            tuple(meta['ori_shape'][:2]) if 'ori_shape' in meta else None)

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` without padding."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def upright(self, maps: Tensor) -> Tensor:
        """Maps ``[..., H, W]`` of the batch without padding and flips.

        Raises:
            ValueError: the metainfo lacks what that takes, or the original's size.
        """
        if self.flip is None or self.ori_shape is None:
            raise ValueError("a result cannot be put back into its image: meta_keys of the test "
                             "pipeline's PackSegInputs must have 'ori_shape', and of flipped "
                             "images a 'flip_direction' that is one of " + ', '.join(FLIPS))
        maps = maps[..., self.rows, self.columns]
        return maps.flip(self.flip) if self.flip else maps

    def restore(self, image_map: Tensor) -> Tensor:
        """A map ``[H, W]`` of the batch as ``[1, *ori_shape]``, of the same dtype.

        Padding is cut off, flips are undone, other sizes are resized by nearest neighbor.

        Raises:
            ValueError: as :meth:`upright`.
        """
        original = self.upright(image_map[None])
        if tuple(original.shape[1:]) != self.ori_shape:
            # nearest on numbers that float32 holds exactly
            resized = F.interpolate(
                original[None].float(), size=self.ori_shape, mode='nearest-exact')[0]
            original = resized.to(original.dtype)
        return original


def placements_of(metas: Sequence[Mapping[str, Any]], inputs: Tensor) -> list[Placement]:
    """The placement of every image of a batch ``[B, C, H, W]``."""
    return [Placement.of(meta, inputs) for meta in metas]


def valid_mask(placements: Sequence[Placement], inputs: Tensor) -> Tensor | None:
    """Pixels of the batch that are not padding, bool ``[B, H, W]``; ``None`` if there is none."""
    b, _, *size = map(int, inputs.shape)
    if all(placement.size == tuple(size) for placement in placements):
        return None
    valid = inputs.new_zeros((b, *size), dtype=torch.bool)
    for image, placement in zip(valid, placements, strict=True):
        image[placement.rows, placement.columns] = True
    return valid


def stack_padded(maps: Sequence[Tensor], inputs: Tensor, value: int) -> Tensor:
    """Maps ``[h, w]`` of each image as one ``[B, H, W]`` of the batch's size, int64.

    They are padded with ``value`` on the right and at the bottom, where mmseg's preprocessor pads
    images.
    """
    height, width = inputs.shape[2:]
    return torch.stack([
        F.pad(m.long(), (0, width - m.shape[1], 0, height - m.shape[0]), value=value)
        for m in maps])


def store_maps(data_samples: Sequence[SegDataSample], placements: Sequence[Placement],
               **maps: Tensor) -> None:
    """Put maps into the data samples, in the geometry of the original images.

    Args:
        **maps: by the name of the field, ``[B, H, W]`` int64, bool or float32, as the network saw
            the images.
    """
    for number, (sample, placement) in enumerate(zip(data_samples, placements, strict=True)):
        sample.set_data({name: PixelData(data=placement.restore(batch[number]))
                         for name, batch in maps.items()})
