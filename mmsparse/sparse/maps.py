"""Features that live on the active pixels of a batch of images.

Letters: ``B`` images, ``C`` channels, ``H, W`` full size, ``N`` active pixels of the whole batch.
"""
from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsparse.compat import find_spconv

from .masked_dense import MaskedMap, masked_map
from .sites import RowMap, Sites

if TYPE_CHECKING:
    from spconv.pytorch import SparseConvTensor

# Checks that read every row. They cost a pass and a device sync, so they are for tests and for
# hunting a bug; spconv itself checks nothing and answers bad rows with garbage.
DEBUG = os.environ.get('MMSPARSE_DEBUG', '0') not in ('', '0')


@dataclass(frozen=True)
class SparseMap:
    """Rows of features and the pixels they belong to; the only builder of spconv tensors.

    Attributes:
        features: ``[N, C]``, floating point.
        indices: ``[N, 3]`` int32, contiguous, ``(image, y, x)`` in raster order, no row twice.
        spatial_shape: ``(H, W)`` in pixels.
        batch_size: ``B``; an image may have no row at all.

    Raises:
        ValueError: dtype, layout or row counts are off. With the environment variable
            ``MMSPARSE_DEBUG=1`` also when a row is out of range, repeated or out of order.
    """

    features: Tensor
    indices: Tensor
    spatial_shape: tuple[int, int]
    batch_size: int

    def __post_init__(self) -> None:
        features, indices = self.features, self.indices
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError('SparseMap.features must be a floating-point [N, C], got '
                             f'{features.dtype} {list(features.shape)}')
        if indices.ndim != 2 or indices.shape[1] != 3 or indices.dtype != torch.int32:
            raise ValueError('SparseMap.indices must be int32 [N, 3] (image, y, x), got '
                             f'{indices.dtype} {list(indices.shape)}')
        # `mask.nonzero().int()` has strides (1, N), which spconv misreads without a word.
        if not indices.is_contiguous():
            raise ValueError('SparseMap.indices must be contiguous, got strides '
                             f'{indices.stride()}; call .contiguous()')
        if len(features) != len(indices):
            raise ValueError(f'SparseMap has {len(features)} rows of features but '
                             f'{len(indices)} rows of indices')
        if self.batch_size < 1 or min(self.spatial_shape) < 1:
            raise ValueError('SparseMap needs batch_size >= 1 and spatial_shape >= (1, 1), got '
                             f'{self.batch_size} and {tuple(self.spatial_shape)}')
        if DEBUG:
            self.check_rows()

    @classmethod
    def from_mask(cls, image: Tensor, mask: Tensor) -> SparseMap:
        """Take the pixels of ``image`` where ``mask`` is true.

        Args:
            image: ``[B, C, H, W]``, floating point.
            mask: ``[B, H, W]`` bool, on the same device.

        Returns:
            The map of the ``mask.sum()`` active pixels in raster order (image, row, column), so
            that ``dense.permute(0, 2, 3, 1)[mask] = features`` writes them back.
        """
        if image.ndim != 4:
            raise ValueError(f'image must be [B, C, H, W], got {list(image.shape)}')
        expected = [image.shape[0], *image.shape[2:]]
        if mask.dtype != torch.bool or list(mask.shape) != expected:
            raise ValueError(f'mask must be bool {expected} for an image of '
                             f'{list(image.shape)}, got {mask.dtype} {list(mask.shape)}')
        rows = mask.nonzero()
        b, y, x = rows.unbind(1)
        return cls(
            features=image[b, :, y, x],
            indices=rows.int().contiguous(),
            spatial_shape=tuple(image.shape[2:]),
            batch_size=image.shape[0])

    def __len__(self) -> int:
        return len(self.indices)

    def replace_features(self, features: Tensor) -> SparseMap:
        """The same pixels with other ``features``, ``[N, C']``."""
        return replace(self, features=features)

    def crop(self, top: int, left: int, bottom: int, right: int) -> tuple[SparseMap, Tensor]:
        """The part inside a window, in the window's own coordinates.

        Args:
            top, left, bottom, right: the window in pixels, ``bottom`` and ``right`` excluded.

        Returns:
            The cropped map, and the int64 numbers ``[n]`` of its rows in this map.
        """
        _, y, x = self.indices.unbind(1)
        inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        rows = inside.nonzero().squeeze(1)
        shift = self.indices.new_tensor([0, top, left])
        return SparseMap(
            features=self.features[rows],
            indices=(self.indices[rows] - shift).contiguous(),
            spatial_shape=(bottom - top, right - left),
            batch_size=self.batch_size), rows

    def read(self, dense: Tensor) -> Tensor:
        """Values of ``dense`` (``[B, H, W]`` or ``[B, C, H, W]``) at the rows: ``[N(, C)]``."""
        b, y, x = self.indices.long().unbind(1)
        return dense[b, :, y, x] if dense.ndim == 4 else dense[b, y, x]

    def write(self, dense: Tensor, values: Tensor) -> Tensor:
        """Put ``values`` (``[N]`` or ``[N, C]``) into ``dense`` in place, and return it."""
        b, y, x = self.indices.long().unbind(1)
        target = dense.permute(0, 2, 3, 1) if dense.ndim == 4 else dense
        target[b, y, x] = values.to(dense.dtype)
        return dense

    def to_masked(self) -> MaskedMap:
        """The same features as a dense map, for :mod:`mmsparse.sparse.masked_dense`."""
        return masked_map(self.features, self.indices, self.spatial_shape, self.batch_size)

    def to_rows(self) -> RowMap:
        """The same features for inference on the CPU, without gradients."""
        mask = torch.zeros(self.batch_size, *self.spatial_shape, dtype=torch.bool)
        mask[self.indices.long().unbind(1)] = True
        rows = torch.cat([self.features, self.features.new_zeros(1, self.features.shape[1])])
        return RowMap(rows, Sites(mask))

    def to_spconv(self) -> SparseConvTensor:
        """A fresh spconv tensor; its rulebooks live and die with one forward pass."""
        find_spconv()
        from spconv.pytorch import SparseConvTensor
        return SparseConvTensor(
            self.features.contiguous(), self.indices, list(self.spatial_shape), self.batch_size)

    def check_rows(self) -> None:
        """Refuse rows outside the map, repeated rows and rows out of raster order."""
        if not len(self):
            return
        h, w = self.spatial_shape
        upper = self.indices.new_tensor([self.batch_size, h, w])
        bad = ((self.indices < 0) | (self.indices >= upper)).any(1)
        if bad.any():
            raise ValueError(f'{int(bad.sum())} rows lie outside batch {self.batch_size} x '
                             f'{h} x {w}, the first is {self.indices[bad][0].tolist()}')
        b, y, x = self.indices.long().unbind(1)
        step = ((b * h + y) * w + x).diff()
        if (step <= 0).any():
            first = int((step <= 0).nonzero()[0]) + 1
            what = 'repeats its predecessor' if step[first - 1] == 0 else 'is not in raster order'
            raise ValueError(f'row {first}, {self.indices[first].tolist()}, {what}')
