"""What every method has to know of the mmseg models it is built on.

Between the images a network saw and the originals: padding, flips, sizes, as mmseg notes them; and
which scores its heads give. Letters: ``B`` images, ``H, W`` size of the batch.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

# Heads whose `predict` returns softmax(query class) x sigmoid(mask): scores, not logits.
PROBABILITY_HEADS = ('MaskFormerHead', 'Mask2FormerHead')


def last_head(segmentor: nn.Module) -> nn.Module:
    """The head that gives a segmentor's result, the last one of a cascade."""
    head = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def ignore_index_of(segmentor: nn.Module) -> int:
    """The label that a segmentor does not learn from; 255 if it learns from all."""
    ignore_index = last_head(segmentor).ignore_index
    return 255 if ignore_index is None else ignore_index


def gives_probabilities(segmentor: nn.Module) -> bool:
    """Whether its scores are probabilities, which need not sum to one, and not logits."""
    return type(last_head(segmentor)).__name__.endswith(PROBABILITY_HEADS)


def padding_of(meta: dict) -> tuple[int, int, int, int]:
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
