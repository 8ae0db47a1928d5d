"""Reading feature pyramids and ground-truth masks at points of RoIs.

Source: EffSeg (2023), sec. 3.1. Letters: ``R`` RoIs, ``B`` images, ``C`` channels, ``L`` levels,
``P`` points, ``G`` objects of an image. A RoI is ``(image, x1, y1, x2, y2)`` in pixels of the
network's input.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from torch import Tensor

from mmsparse.sizes import size_of


def safe_rois(rois: Tensor) -> Tensor:
    """Make RoIs ``[R, 5]`` that can be computed with: float32, finite, sides of 1 pixel or more.

    A corner that is infinite or NaN becomes 0. The result is detached.
    """
    rois = rois.detach().float().nan_to_num(0, 0, 0)
    low = rois[:, 1:3]
    return torch.cat([rois[:, :1], low, rois[:, 3:].maximum(low + 1)], 1)


def roi_levels(rois: Tensor, levels: int, finest: float) -> Tensor:
    """Pyramid level of every RoI, 0 the finest: int64 ``[R]``.

    Args:
        rois: ``[R, 5]``.
        levels: ``L``.
        finest: RoIs whose side, the root of their area, is below twice this have level 0, below
            four times this level 1, and so on.
    """
    side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return (side / finest + 1e-6).log2().floor().clamp(0, levels - 1).long()


class PyramidRows(NamedTuple):
    """The pixels of all levels and images as rows of one tensor.

    Points of any level and image are then read by one gather, without a loop over levels, which
    would have to wait for the GPU to learn how many points each has.

    Attributes:
        rows: ``[sum of B H W, C]``.
        first: int64 ``[L]``, number of each level's first row.
        size: int64 ``[L, 2]``, height and width of each level.
        stride: float32 ``[L]``, pixels of the network's input from one feature pixel to the next.
    """

    rows: Tensor
    first: Tensor
    size: Tensor
    stride: Tensor


def starts(counts: Sequence[int]) -> list[int]:
    """Where each of several parts of these lengths begins, one behind the other: 0, n_0, ..."""
    return [0, *accumulate(counts)][:-1]


def pyramid_rows(feats: Sequence[Tensor], strides: Sequence[int]) -> PyramidRows:
    """Flatten a pyramid.

    Args:
        feats: ``L`` maps ``[B, C, H, W]``.
        strides: of the maps, in pixels of the network's input.
    """
    device, counts = feats[0].device, [f.shape[0] * f.shape[2] * f.shape[3] for f in feats]
    return PyramidRows(
        torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in feats]),
        torch.tensor(starts(counts), device=device),
        torch.tensor([size_of(f) for f in feats], device=device),
        torch.tensor(strides, dtype=torch.float32, device=device))


def sample_pyramid(pyramid: PyramidRows, image: Tensor, level: Tensor, points: Tensor) -> Tensor:
    """Bilinear features at points, as ``grid_sample`` of each point's own map would give them.

    As by ``grid_sample``'s default, what lies beyond a map is 0, so that features fade to 0 within
    half a feature pixel around it.

    Args:
        pyramid: of :func:`pyramid_rows`.
        image, level: int64 ``[P]``.
        points: float ``[P, 2]``, x and y in pixels of the network's input.

    Returns:
        ``[P, C]``.
    """
    size = pyramid.size[level][:, None]  # [P, 1, 2]
    # row and column, counted from the center of the first feature pixel
    position = points.flip(1) / pyramid.stride[level, None] - 0.5
    low = position.floor()
    fraction = (position - low)[:, None]
    corner = low.long()[:, None] + torch.arange(2, device=low.device)[:, None]  # [P, low/high, 2]
    weight = torch.cat([1 - fraction, fraction], 1) * ((corner >= 0) & (corner < size))
    y, x = corner.clamp(min=0).minimum(size - 1).unbind(2)  # [P, 2] each
    first = pyramid.first[level] + image * size[:, 0].prod(1)
    rows = first[:, None, None] + y[:, :, None] * size[:, :, 1:] + x[:, None, :]  # [P, 2, 2]
    weights = weight[:, :, None, 0] * weight[:, None, :, 1]  # [P, 2, 2]
    # gathers and sums without keeping the four rows of each point
    return F.embedding_bag(rows.flatten(1), pyramid.rows, mode='sum',
                           per_sample_weights=weights.flatten(1).to(pyramid.rows.dtype))


def cell_centers(rois: Tensor, cells: Tensor, size: int) -> Tensor:
    """Centers of the cells of a grid that is laid over each RoI.

    Args:
        rois: ``[R, 5]``.
        cells: int64 ``[N, 3]``, RoI, row, column.
        size: cells along a side of the grid.

    Returns:
        ``[N, 2]``, x and y in pixels of the network's input.
    """
    box = rois[cells[:, 0], 1:]
    return box[:, :2] + (cells[:, [2, 1]].to(box) + 0.5) / size * (box[:, 2:] - box[:, :2])


class RoIMasks(NamedTuple):
    """Ground-truth masks of the RoIs that masks are trained on.

    Attributes:
        masks: for each of ``B`` images those of its objects, float32 ``[G, H, W]``, 0 or 1.
        rois: ``[R, 5]``, image by image.
        objects: int64 ``[R]``, number of each RoI's object within its image.
        labels: int64 ``[R]``, class of the object.
    """

    masks: list[Tensor]
    rois: Tensor
    objects: Tensor
    labels: Tensor

    def coverage(self, size: int) -> Tensor:
        """Share of each cell that the object covers, for a grid laid over each RoI.

        It is a rounded average of samples: a wholly covered cell may have 1 - 6e-8, for instance.

        Args:
            size: cells along a side of the grid.

        Returns:
            float32 ``[R, size, size]``, from 0 to 1.
        """
        coverage = [self.rois.new_empty(0, 1, size, size)]
        for image, masks in enumerate(self.masks):
            of_image = self.rois[:, 0] == image
            # RoIAlign on the masks as if they were images: the object's number is the image's
            boxes = torch.cat([self.objects[of_image, None], self.rois[of_image, 1:]], 1).to(masks)
            if len(boxes):
                coverage.append(roi_align(masks[:, None], boxes, size, 1.0, 0, 'avg', True))
        return torch.cat(coverage)[:, 0]

    def at(self, roi: Tensor, points: Tensor) -> Tensor:
        """Values of the masks at points, bilinear between pixels, 0 beyond the image.

        Args:
            roi: int64 ``[P]``, which RoI's object each point asks about.
            points: ``[P, 2]``, x and y in pixels of the network's input.

        Returns:
            float32 ``[P]``, from 0 to 1.
        """
        value = points.new_zeros(len(points))
        for image, masks in enumerate(self.masks):
            of_image = self.rois[roi, 0] == image
            objects = self.objects[roi[of_image]]
            # a pyramid of one level, in which the objects are the images
            value[of_image] = sample_pyramid(
                pyramid_rows([masks[:, None]], [1]), objects, torch.zeros_like(objects),
                points[of_image])[:, 0]
        return value
