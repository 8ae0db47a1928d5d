"""SwiftNet's augmentation and the pixel weights of its boundary-aware loss.

Source: Orsic et al., CVPR 2019, sec. 4; Orsic and Segvic, Pattern Recognition 2020. Letters:
``H, W`` size.
"""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs

from mmsparse.registry import TRANSFORMS

from .resizing import resize_image, resize_labels


@TRANSFORMS.register_module()
class RandomSquareCropAndScale(BaseTransform):
    """Crop a square of random side at a random place, and resize it to ``size``.

    The side is ``int(size * s)`` with ``s`` uniform in ``ratio_range``: zooming in and out are not
    equally likely as with a random resize, the mean zoom at (0.5, 2) is 0.92. Where the side
    exceeds the image, the image is first padded to the right and below. The image is resized by
    bicubic interpolation, antialiased; label maps by nearest neighbor, without a shift.

    Args:
        size: of the result in pixels.
        ratio_range: of ``s``.
        pad_val: color of the padding, in the image's channel order (mmcv loads BGR); the mean
            color, so that it is zero once normalized.
        seg_pad_val: label of the padding.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, size: int, ratio_range: tuple[float, float] = (0.5, 2.0),
                 pad_val: Sequence[float] = (103.53, 116.28, 123.675),
                 seg_pad_val: int = 255) -> None:
        if size < 1 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError('RandomSquareCropAndScale needs size >= 1 and 0 < low <= high in '
                             f'ratio_range, got {size!r} and {ratio_range!r}')
        self.size = size
        self.ratio_range = ratio_range[0], ratio_range[1]
        self.pad_val = tuple(pad_val)
        self.seg_pad_val = seg_pad_val

    def transform(self, results: dict) -> dict:
        """Replace ``img`` and every map in ``seg_fields``."""
        height, width = results['img'].shape[:2]
        side = max(1, int(self.size * np.random.uniform(*self.ratio_range)))
        left = np.random.randint(max(width - side, 0) + 1)
        top = np.random.randint(max(height - side, 0) + 1)
        shape = max(height, side), max(width, side)

        def crop(array: np.ndarray, pad_val: Sequence[float] | int) -> np.ndarray:
            array = mmcv.impad(array, shape=shape, pad_val=pad_val)
            return array[top:top + side, left:left + side]

        size = self.size, self.size
        results['img'] = resize_image(crop(results['img'], self.pad_val), size)
        for key in results.get('seg_fields', []):
            results[key] = resize_labels(crop(results[key], self.seg_pad_val), size)
        results['img_shape'] = results['pad_shape'] = size
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(size={self.size}, ratio_range={self.ratio_range}, '
                f'pad_val={self.pad_val}, seg_pad_val={self.seg_pad_val})')


def boundary_distance(label: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """Distance to the nearest pixel of another class or without one, float32 ``[H, W]``.

    In pixels, by OpenCV's 5x5 mask (off the axes off by up to 2 %). The border of the image is no
    boundary: a map of one class is infinitely far. 0 where there is no label.

    Args:
        label: classes ``[H, W]``.
        ignore_index: no label.
    """
    distance = np.zeros(label.shape, np.float32)
    for value in np.unique(label):
        if value != ignore_index:
            inside = (label == value).astype(np.uint8)
            distance += cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5) * inside
    return distance


@TRANSFORMS.register_module()
class LabelBoundaryWeight(BaseTransform):
    """Weights that are larger the nearer a pixel is to a class boundary.

    Stands after the augmentation; :class:`PackWeightedSegInputs` passes the weights on. Adds
    ``gt_weight_map``, float32 ``[H, W]``: 0 where there is no label.

    Args:
        bins: limits of the distance in pixels, ascending.
        alphas: weight below the first limit, between the first two, …, beyond the last.
        ignore_index: no label.

    Raises:
        ValueError: bins do not ascend, or there is not one alpha more than bins.
    """

    def __init__(self, bins: Sequence[float] = (16, 64, 128),
                 alphas: Sequence[float] = (8, 4, 2, 1), ignore_index: int = 255) -> None:
        if len(alphas) != len(bins) + 1 or list(bins) != sorted(set(bins)):
            raise ValueError('LabelBoundaryWeight needs ascending bins and one alpha more than '
                             f'bins, got {bins!r} and {alphas!r}')
        self.bins = tuple(bins)
        self.alphas = tuple(alphas)
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Add ``gt_weight_map``."""
        label = results['gt_seg_map']
        distance = boundary_distance(label, self.ignore_index)
        weight = np.asarray(self.alphas, np.float32)[np.digitize(distance, self.bins)]
        results['gt_weight_map'] = np.where(label == self.ignore_index, np.float32(0), weight)
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(bins={self.bins}, alphas={self.alphas}, '
                f'ignore_index={self.ignore_index})')


@TRANSFORMS.register_module()
class PackWeightedSegInputs(PackSegInputs):
    """mmseg's ``PackSegInputs``, and ``gt_weight_map`` as float32 ``[1, H, W]``."""

    def transform(self, results: dict) -> dict:
        """Pack image, labels and weights."""
        packed = super().transform(results)
        weight = torch.from_numpy(np.ascontiguousarray(results['gt_weight_map'][None]))
        packed['data_samples'].gt_weight_map = PixelData(data=weight)
        return packed
