"""What every method has to know of the mmseg models it is built on.

Between the images a network saw and the originals: padding, flips, sizes, as mmseg notes them; and
which scores its heads give. Letters: ``B`` images, ``H, W`` size of the batch.
"""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import BaseSegmentor

# Heads whose `predict` returns softmax(query class) x sigmoid(mask), with all that inherit from
# them. By name: importing mmseg's would import mmdet.
PROBABILITY_HEADS = {'MaskFormerHead', 'Mask2FormerHead'}
# Heads whose scores a config has spoken of, or that have been looked at.
_settled: WeakSet[nn.Module] = WeakSet()


def last_head(segmentor: BaseSegmentor) -> BaseDecodeHead:
    """The head that gives a segmentor's result, the last one of a cascade."""
    head = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def ignore_index_of(segmentor: BaseSegmentor) -> int:
    """The label that a segmentor does not learn from; 255 if it learns from all."""
    ignore_index = last_head(segmentor).ignore_index
    return 255 if ignore_index is None else ignore_index


def gives_probabilities(segmentor: BaseSegmentor, setting: bool | None = None) -> bool:
    """Whether its scores are probabilities, which need not sum to one, and not logits.

    Args:
        segmentor: with a ``decode_head``, or several.
        setting: what a config says of it; ``None`` goes by the class of the head. Who asks so calls
            :func:`warn_of_probabilities` with the scores.
    """
    head = last_head(segmentor)
    if setting is not None:
        _settled.add(head)
        return setting
    return any(cls.__name__ in PROBABILITY_HEADS for cls in type(head).__mro__)


def warn_of_probabilities(segmentor: BaseSegmentor, scores: Tensor, key: str) -> None:
    """Warn if scores that are taken for logits look like probabilities; once for each head.

    The first scores of every head are looked at, unless a config has settled what they are.

    Args:
        segmentor: that gave them.
        scores: ``[B, K, h, w]``.
        key: of the config by which they can be declared probabilities, as
            ``'model.probabilities'``.
    """
    head = last_head(segmentor)
    if torch.compiler.is_compiling() or head in _settled:  # a graph cannot look at values
        return
    _settled.add(head)
    if gives_probabilities(segmentor) or scores.shape[1] == 1:
        return
    low, high = scores.aminmax()
    if low >= 0 and high <= 1 and (scores.float().sum(1) - 1).abs().max() < 0.05:  # of bfloat16
        warnings.warn(
            f'the scores of {type(head).__name__} are taken for logits, but lie between 0 and 1 '
            f'and sum to 1, as probabilities do: if they are, set {key}=True in the config, else '
            f'{key}=False', stacklevel=2)


def padding_of(meta: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding of an image in pixels, by mmseg's two names."""
    return tuple(meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0))))


def unpadded_size(meta: dict, inputs: Tensor) -> tuple[int, int]:
    """``(H, W)`` of an image of the batch without its padding."""
    left, right, top, bottom = padding_of(meta)
    return inputs.shape[2] - top - bottom, inputs.shape[3] - left - right


def valid_mask(metas: list[dict], inputs: Tensor) -> Tensor | None:
    """Pixels of the batch that are not padding, bool ``[B, H, W]``; ``None`` if there is none."""
    if not any(any(padding_of(m)) for m in metas):
        return None
    b, _, height, width = inputs.shape
    valid = inputs.new_zeros((b, height, width), dtype=torch.bool)
    for image, meta in zip(valid, metas, strict=True):
        left, right, top, bottom = padding_of(meta)
        image[top:height - bottom, left:width - right] = True
    return valid


def stack_padded(maps: list[Tensor], inputs: Tensor, value: int) -> Tensor:
    """Maps ``[h, w]`` of each image as one ``[B, H, W]`` of the batch's size, int64.

    They are padded with ``value`` on the right and at the bottom, where mmseg's preprocessor pads
    images.
    """
    height, width = inputs.shape[2:]
    return torch.stack([
        F.pad(m.long(), (0, width - m.shape[1], 0, height - m.shape[0]), value=value)
        for m in maps])


def store_maps(data_samples: list[SegDataSample], name: str, maps: Tensor) -> None:
    """Put one map per image into its data sample, in the geometry of the original image.

    Args:
        name: field of the data sample.
        maps: ``[B, H, W]`` int64, bool or float32, as the network saw the images; padding is cut
            off, flips are undone, other sizes are resized by nearest neighbor.
    """
    _, height, width = maps.shape
    for sample, image in zip(data_samples, maps, strict=True):
        meta = sample.metainfo
        left, right, top, bottom = padding_of(meta)
        image = image[None, top:height - bottom, left:width - right]
        if meta.get('flip'):
            image = image.flip(2 if meta['flip_direction'] == 'horizontal' else 1)
        size = tuple(meta['ori_shape'])
        if tuple(image.shape[1:]) != size:
            # nearest on numbers that float32 holds exactly
            resized = F.interpolate(image[None].float(), size=size, mode='nearest-exact')[0]
            image = resized.to(image.dtype)
        sample.set_data({name: PixelData(data=image)})
