"""Sparse layers as dense convolutions times a mask: same function, any torch backend.

A :class:`MaskedMap` may be passed to every layer of :mod:`mmsparse.sparse.layers` in place of a
spconv tensor; parameters are shared because they belong to the layer. It serves as test oracle, as
the way without spconv, and for export. Letters: ``B`` images, ``C, D`` channels, ``H, W`` size.

What keeps the two equal (SparseRefine supplement, sec. 1; submanifold convolution: Graham et al.,
CVPR 2018): everything outside the mask is exactly zero before and after each layer.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MaskedMap:
    """A dense map that is zero outside its mask.

    Attributes:
        data: ``[B, C, H, W]``; zero wherever ``mask`` is false.
        mask: ``[B, 1, H, W]`` bool.
    """

    data: Tensor
    mask: Tensor

    def rows(self) -> Tensor:
        """Features of the active pixels in raster order, ``[N, C]``."""
        return self.data.permute(0, 2, 3, 1)[self.mask[:, 0]]

    def replace_rows(self, rows: Tensor) -> MaskedMap:
        """The same pixels with other features, ``[N, C']``."""
        b, _, h, w = self.data.shape
        data = rows.new_zeros(b, h, w, rows.shape[1])
        data = data.index_put((self.mask[:, 0],), rows)
        return MaskedMap(data.permute(0, 3, 1, 2), self.mask)


def masked_map(features: Tensor, indices: Tensor, spatial_shape: Sequence[int],
               batch_size: int) -> MaskedMap:
    """Rows as a dense map; differentiable in the features.

    Args:
        features: ``[N, C]``.
        indices: int ``[N, 3]``, ``(image, y, x)``, in any order.
        spatial_shape: ``(H, W)``.
        batch_size: ``B``.
    """
    place = indices.long().unbind(1)
    mask = torch.zeros(batch_size, *spatial_shape, dtype=torch.bool, device=indices.device)
    mask[place] = True
    # index_put is differentiable in its values, so gradients reach `features`.
    data = features.new_zeros(batch_size, *spatial_shape, features.shape[1])
    return MaskedMap(data.index_put(place, features).permute(0, 3, 1, 2), mask[:, None])


def subm_conv(x: MaskedMap, weight: Tensor) -> MaskedMap:
    """3x3 convolution, stride 1, whose output lives on the input's pixels.

    Args:
        weight: ``[D, 3, 3, C]``, correlation as in ``torch.nn.functional.conv2d``.
    """
    data = F.conv2d(x.data, weight.permute(0, 3, 1, 2), padding=1)
    return MaskedMap(data * x.mask, x.mask)


def down_conv(x: MaskedMap, weight: Tensor, padding: int) -> MaskedMap:
    """3x3 convolution, stride 2; a cell is active if any pixel it reads is.

    Args:
        weight: ``[D, 3, 3, C]``.
        padding: 0 or 1, of the convolution.
    """
    mask = F.max_pool2d(x.mask.to(x.data.dtype), 3, stride=2, padding=padding) > 0
    data = F.conv2d(x.data, weight.permute(0, 3, 1, 2), stride=2, padding=padding)
    return MaskedMap(data * mask, mask)


def up_conv(x: MaskedMap, weight: Tensor, padding: int, fine_mask: Tensor) -> MaskedMap:
    """Transpose of :func:`down_conv`, evaluated on the pixels the coarse map came from.

    Args:
        weight: ``[D, 3, 3, C]``; tap ``(r, c)`` joins cell ``(i, j)`` to pixel
            ``(2i - padding + r, 2j - padding + c)``, as in the paired ``down_conv``.
        padding: that of the paired ``down_conv``.
        fine_mask: ``[B, 1, H, W]`` bool, the mask that ``down_conv`` read.
    """
    sizes = zip(fine_mask.shape[2:], x.data.shape[2:], strict=True)
    lost = [fine - (2 * (coarse - 1) + 3 - 2 * padding) for fine, coarse in sizes]
    data = F.conv_transpose2d(
        x.data, weight.permute(3, 0, 1, 2), stride=2, padding=padding, output_padding=lost)
    return MaskedMap(data * fine_mask, fine_mask)


def concat(a: MaskedMap, b: MaskedMap) -> MaskedMap:
    """Channels of two maps over the same pixels."""
    return MaskedMap(torch.cat([a.data, b.data], 1), a.mask)
