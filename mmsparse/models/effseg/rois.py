"""Boxes, pyramids and masks from the view of RoIs.

Source: EffSeg (2023), sec. 3.1. Letters: ``R`` RoIs, ``B`` images, ``C`` channels, ``L`` levels,
``P`` points, ``G`` objects. A RoI is ``(image, x1, y1, x2, y2)`` in pixels of the network's input.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from torch import Tensor


def safe_rois(rois: Tensor) -> Tensor:
    """RoIs ``[R, 5]`` with finite corners and sides of one pixel at least, detached, float32."""
    rois = rois.detach().float().nan_to_num(0, 0, 0)
    low = rois[:, 1:3]
    return torch.cat([rois[:, :1], low, rois[:, 3:].maximum(low + 1)], 1)


def roi_levels(rois: Tensor, levels: int, finest: float) -> Tensor:
    """Pyramid level of every RoI, 0 the finest: int64 ``[R]``.

    Args:
        rois: ``[R, 5]``.
        levels: ``L``.
        finest: RoIs of less than twice this side are read at the finest level.
    """
    side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return (side / finest + 1e-6).log2().floor().clamp(0, levels - 1).long()


class PyramidRows(NamedTuple):
    """Pixels of all levels and images one below the other, to be read without a loop or a sync.

    Attributes:
        rows: ``[sum of B H W, C]``.
        first: int64 ``[L]``, where each level begins.
        size: int64 ``[L, 2]``, height and width.
        stride: float32 ``[L]``, input pixels between two feature pixels.
    """

    rows: Tensor
    first: Tensor
    size: Tensor
    stride: Tensor


def pyramid_rows(feats: Sequence[Tensor], strides: Sequence[int]) -> PyramidRows:
    """Flatten ``L`` feature maps ``[B, C, H, W]``."""
    device, counts = feats[0].device, [f.shape[0] * f.shape[2] * f.shape[3] for f in feats]
    return PyramidRows(
        torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in feats]),
        torch.tensor([sum(counts[:i]) for i in range(len(feats))], device=device),
        torch.tensor([tuple(f.shape[2:]) for f in feats], device=device),
        torch.tensor(strides, dtype=torch.float32, device=device))


def sample(pyramid: PyramidRows, image: Tensor, level: Tensor, points: Tensor) -> Tensor:
    """Bilinear features at points, zeros beyond the maps: torch's ``grid_sample`` by default.

    Args:
        pyramid: of :func:`pyramid_rows`.
        image, level: int64 ``[P]``.
        points: float ``[P, 2]``, x and y in pixels of the network's input.

    Returns:
        ``[P, C]``.
    """
    size = pyramid.size[level][:, None]
    at = points.flip(1) / pyramid.stride[level, None] - 0.5  # row, column
    low = at.floor()
    fraction = (at - low)[:, None]
    corner = low.long()[:, None] + torch.arange(2, device=at.device)[:, None]  # [P, low/high, 2]
    weight = torch.cat([1 - fraction, fraction], 1) * ((corner >= 0) & (corner < size))
    y, x = corner.clamp(min=0).minimum(size - 1).unbind(2)
    first = pyramid.first[level] + image * size[:, 0].prod(1)
    rows = first[:, None, None] + y[:, :, None] * size[:, :, 1:] + x[:, None, :]
    weights = weight[:, :, None, 0] * weight[:, None, :, 1]
    # gathers and sums without keeping the four rows
    return F.embedding_bag(rows.flatten(1), pyramid.rows, mode='sum',
                           per_sample_weights=weights.flatten(1).to(pyramid.rows.dtype))


def cell_centers(rois: Tensor, cells: Tensor, size: int) -> Tensor:
    """Centers of cells of RoIs' grids, x and y, ``[N, 2]`` in pixels.

    Args:
        rois: ``[R, 5]``.
        cells: int64 ``[N, 3]``, RoI, row, column.
        size: cells along a side.
    """
    box = rois[cells[:, 0], 1:]
    return box[:, :2] + (cells[:, [2, 1]].to(box) + 0.5) / size * (box[:, 2:] - box[:, :2])


class RoIMasks(NamedTuple):
    """True masks that RoIs are trained on.

    Attributes:
        masks: for each of ``B`` images float32 ``[G, H, W]`` of 0 and 1.
        rois: ``[R, 5]``, image by image.
        objects: int64 ``[R]``, number of the object in its image.
        labels: int64 ``[R]``, its class.
    """

    masks: list[Tensor]
    rois: Tensor
    objects: Tensor
    labels: Tensor

    def coverage(self, size: int) -> Tensor:
        """Share of each cell of a grid that the mask covers, ``[R, size, size]``.

        Averages round, so a covered cell may have a bit less than 1.
        """
        found = [self.rois.new_empty(0, 1, size, size)]
        for image, masks in enumerate(self.masks):
            mine = self.rois[:, 0] == image
            boxes = torch.cat([self.objects[mine, None], self.rois[mine, 1:]], 1).to(masks)
            if len(boxes):
                found.append(roi_align(masks[:, None], boxes, size, 1.0, 0, 'avg', True))
        return torch.cat(found)[:, 0]

    def at(self, roi: Tensor, points: Tensor) -> Tensor:
        """Masks of RoIs at points, bilinearly; 0 beyond the image.

        Args:
            roi: int64 ``[P]``.
            points: ``[P, 2]``, x and y in pixels.

        Returns:
            float32 ``[P]``, from 0 to 1.
        """
        value = points.new_zeros(len(points))
        for image, masks in enumerate(self.masks):
            mine = self.rois[roi, 0] == image
            objects = self.objects[roi[mine]]
            value[mine] = sample(
                pyramid_rows([masks[:, None]], [1]), objects, objects * 0, points[mine])[:, 0]
        return value
