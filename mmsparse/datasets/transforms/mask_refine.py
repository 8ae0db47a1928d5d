"""Images with an object mask and a coarse version of it, for training and testing mask refiners.

Source: CRM (CVPR 2022); the perturbation of masks is that of CascadePSP (CVPR 2020). Masks are
uint8 ``[H, W]`` from 0 to 255 and listed in ``seg_fields``, so that stock transforms flip and crop
them with the image. Stock resizing takes OpenCV's nearest neighbors, which shifts them against it
by up to half a pixel. Letters: ``H, W`` size, ``P`` points of a contour.
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

from mmsparse.masks import read_mask
from mmsparse.pictures import AS_STORED
from mmsparse.registry import TRANSFORMS

MASKS = ('gt_mask', 'coarse_mask')
ROUNDS = 250
EDITS_PER_ROUND = 4


@TRANSFORMS.register_module()
class LoadMasks(BaseTransform):
    """Load the masks that ``gt_mask_path`` and ``coarse_mask_path`` name, as 8-bit gray.

    Files as :func:`mmsparse.masks.read_mask` takes them, read as stored. Stands right after the
    image is loaded, which is to be read so too: ``color_type='color_ignore_orientation'`` (see
    :mod:`mmsparse.pictures`). A path that is not there names no mask.

    Args:
        resize_coarse: resize a coarse mask of another size than the image's to it, bicubically,
            and cut it at 0.5, as CascadePSP (CVPR 2020) does with a segmentor's output for BIG.
        backend_args: of mmengine's file backends.
    """

    def __init__(self, *, resize_coarse: bool = False, backend_args: dict | None = None) -> None:
        self.resize_coarse = resize_coarse
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add ``gt_mask`` and ``coarse_mask``.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file holds no mask, or one of another size than the image.
        """
        height, width = results['img'].shape[:2]
        for name in MASKS:
            path = results.get(f'{name}_path')
            if path is None:
                continue
            mask = np.rint(255 * read_mask(path, self.backend_args)).astype(np.uint8)
            if mask.shape != (height, width):
                # of the shape of the picture on its side, in whatever size
                sideways = height != width and abs(mask.shape[0] * height / width
                                                   - mask.shape[1]) < 1
                if name == 'gt_mask' or not self.resize_coarse or sideways:
                    hint = f'; {AS_STORED}' if sideways else ''
                    raise ValueError(
                        f'LoadMasks: mask {path} of {mask.shape[1]}x{mask.shape[0]} does not fit '
                        f'image {results["img_path"]} of {width}x{height} pixels{hint}')
                # Pillow's smooths what it shrinks; OpenCV's cubic does not
                mask = mmcv.imresize(mask, (width, height), interpolation='bicubic',
                                     backend='pillow')
                mask = np.where(mask > 127, 255, 0).astype(np.uint8)
            results[name] = mask
            results.setdefault('seg_fields', []).append(name)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(resize_coarse={self.resize_coarse})'


@TRANSFORMS.register_module()
class RandomMaskCrop(BaseTransform):
    """Crop a square at a random place; what lies beyond the image is black and background.

    Along a side that is shorter than the square, the square holds all of the image, at a random
    place with zeros on both sides, as in CRM's (CVPR 2022) released training. mmseg's
    ``RandomCrop`` leaves small images small, and mmcv's ``Pad`` pads no masks.

    Args:
        size: side of the square in pixels.

    Raises:
        ValueError: the side is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f'RandomMaskCrop.size must be at least 1, got {size!r}')
        self.size = size

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and all of ``seg_fields``."""
        place = [draw_offset(length, self.size) for length in results['img'].shape[:2]]
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = crop_square(results[key], place, self.size)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'


def draw_offset(length: int, size: int) -> int:
    """Where a window of ``size`` pixels begins on an axis of ``length``, negative if it is longer.

    All places are equally likely where the longer of the two holds all of the shorter.
    """
    return np.random.randint(min(length - size, 0), max(length - size, 0) + 1)


def crop_square(array: np.ndarray, place: Sequence[int], size: int) -> np.ndarray:
    """Cut ``size`` x ``size`` pixels at ``(top, left)`` out of ``[H, W, ...]``, zeros beyond it."""
    found = np.zeros((size, size, *array.shape[2:]), array.dtype)
    part = array[tuple(slice(max(p, 0), p + size) for p in place)]
    top, left = (max(-p, 0) for p in place)
    found[top:top + part.shape[0], left:left + part.shape[1]] = part
    return found


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Random brightness, contrast and saturation, in random order.

    Each factor is uniform in ``[1 - x, 1 + x]``: 0 brightness is black, 0 contrast the mean gray,
    0 saturation a gray image, 1 leaves it as it is.

    Args:
        brightness, contrast, saturation: ``x``, in [0, 1].

    Raises:
        ValueError: one of them is out of range.
    """

    def __init__(self, *, brightness: float, contrast: float, saturation: float) -> None:
        self.strengths = dict(brightness=brightness, contrast=contrast, saturation=saturation)
        for name, strength in self.strengths.items():
            if not 0 <= strength <= 1:
                raise ValueError(f'ColorJitter.{name} must be in [0, 1], got {strength!r}')

    def transform(self, results: dict) -> dict:
        """Replace ``img`` (BGR)."""
        adjust = dict(brightness=mmcv.adjust_brightness, contrast=mmcv.adjust_contrast,
                      saturation=mmcv.adjust_color)
        for name in np.random.permutation(list(adjust)):
            strength = self.strengths[name]
            factor = np.random.uniform(1 - strength, 1 + strength)
            results['img'] = adjust[name](results['img'], factor)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{k}={v}" for k, v in self.strengths.items())})'


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two masks ``[H, W]`` of 0 and 255; that of two empty ones is 1."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def shortest_runs(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Runs of a contour that are cut off with a short chord.

    A run is a tenth of the points (rounded down), its chord leads from its first point to the one
    after its last.

    Args:
        points: int ``[P, 2]``, ``P >= 10``.

    Returns:
        The first points of the tenth of the runs (rounded up) with the shortest chords, int64,
        and the number of points in a run.
    """
    length = len(points) // 10
    chords = ((points[length:] - points[:-length]) ** 2).sum(1)
    return np.argsort(chords, kind='stable')[:-(-len(chords) // 10)], length


def simplify_contours(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace every contour by a polygon with few corners, as a hasty annotator would draw it.

    Of each contour, inner ones included, a random run of :func:`shortest_runs` is dropped and a
    random tenth of the other points kept. Contours of less than ten points vanish; where all do,
    the mask is returned.

    Args:
        mask: uint8 ``[H, W]`` of 0 and 255.
        rng: source of random numbers.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for points in contours:
        if len(points) < 10:
            continue
        starts, length = shortest_runs(points[:, 0])
        start = rng.choice(starts)
        points = np.delete(points, slice(start, start + length), axis=0)
        kept = np.sort(rng.choice(len(points), len(points) // 10, replace=False))
        if len(kept):
            polygons.append(points[kept])
    if not polygons:
        return mask.copy()
    # all at once: filled by the even-odd rule, holes survive
    return cv2.fillPoly(np.zeros(mask.shape, np.uint8), polygons, 255)


def edit_rectangle(mask: np.ndarray, rng: np.random.Generator) -> None:
    """Dilate or erode a random rectangle of a mask in place, a quarter of them with a new center.

    The kernel is a ``k x k`` square or an ellipse of ``k x k``, ``k x k/2`` or ``k/2 x k`` with
    ``k`` from 3 to 9.
    """
    height, width = mask.shape
    top, left = rng.integers(height), rng.integers(width)
    bottom, right = rng.integers(top, height) + 1, rng.integers(left, width) + 1
    if rng.random() < 0.25:
        mask[(top + bottom) // 2, (left + right) // 2] = 255 * rng.integers(2)
    k = int(rng.integers(3, 10))
    kernel = cv2.getStructuringElement(*(
        (cv2.MORPH_RECT, (k, k)), (cv2.MORPH_ELLIPSE, (k, k)),
        (cv2.MORPH_ELLIPSE, (k, k // 2)), (cv2.MORPH_ELLIPSE, (k // 2, k)))[rng.integers(4)])
    morph = cv2.dilate if rng.random() < 0.5 else cv2.erode
    mask[top:bottom, left:right] = morph(mask[top:bottom, left:right], kernel)


def perturb_mask(mask: np.ndarray, target_iou: float, rng: np.random.Generator) -> np.ndarray:
    """Spoil the boundary of a mask as a coarse segmentation does.

    Simplifies the contours, then edits rectangles, four at a time, until the IoU with the
    simplified mask falls below the target, 250 times at most; so the IoU with ``mask`` usually
    ends below it too. Source: CascadePSP (CVPR 2020), which CRM (CVPR 2022) takes over.

    Args:
        mask: uint8 ``[H, W]`` of 0 and 255; returned as it is if a side has at most 2 pixels.
        target_iou: in [0, 1].
        rng: source of random numbers.

    Returns:
        A new uint8 ``[H, W]`` of 0 and 255.

    Raises:
        ValueError: the mask is not such an array.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or not np.isin(mask, (0, 255)).all():
        raise ValueError('perturb_mask needs a uint8 mask [H, W] of 0 and 255, got '
                         f'{mask.dtype} {list(mask.shape)} of {np.unique(mask)[:5]}')
    if min(mask.shape) <= 2:
        return mask.copy()
    simple = simplify_contours(mask, rng)
    coarse = simple.copy()
    for _ in range(ROUNDS):
        for _ in range(EDITS_PER_ROUND):
            edit_rectangle(coarse, rng)
        if mask_iou(coarse, simple) < target_iou:
            break
    return coarse


@TRANSFORMS.register_module()
class PerturbMaskBoundary(BaseTransform):
    """Make the coarse mask of a training sample from its true one, see :func:`perturb_mask`.

    Stands after cropping.

    Args:
        iou_range: the target IoU is uniform in it.
        cut: pixels of ``gt_mask`` above it are the object. 0, as in both papers' training, counts
            every soft edge pixel to it, 127 those that are more than half covered.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, iou_range: tuple[float, float] = (0.8, 1.0), cut: int = 0) -> None:
        if len(iou_range) != 2 or not 0 <= iou_range[0] <= iou_range[1] <= 1:
            raise ValueError('PerturbMaskBoundary.iou_range must be 0 <= low <= high <= 1, got '
                             f'{iou_range!r}')
        if not 0 <= cut < 255:
            raise ValueError(f'PerturbMaskBoundary.cut must be from 0 to 254, got {cut!r}')
        self.iou_range = iou_range[0], iou_range[1]
        self.cut = cut

    def transform(self, results: dict) -> dict:
        """Add ``coarse_mask``, uint8 ``[H, W]`` of 0 and 255."""
        rng = np.random.default_rng(np.random.randint(2**31))  # follows np.random.seed
        mask = np.where(results['gt_mask'] > self.cut, 255, 0).astype(np.uint8)
        results['coarse_mask'] = perturb_mask(mask, rng.uniform(*self.iou_range), rng)
        results.setdefault('seg_fields', []).append('coarse_mask')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(iou_range={self.iou_range}, cut={self.cut})'


@TRANSFORMS.register_module()
class PackMaskInputs(PackSegInputs):
    """mmseg's ``PackSegInputs`` with the masks as float32 ``[1, H, W]`` in [0, 1].

    ``gt_mask`` is packed if it is there. Arguments as in mmseg.
    """

    def transform(self, results: dict) -> dict:
        """Pack image and masks.

        Raises:
            KeyError: there is no ``coarse_mask``.
        """
        if 'coarse_mask' not in results:
            raise KeyError('PackMaskInputs needs coarse_mask: from mmsparse.PerturbMaskBoundary, '
                           'or from mmsparse.LoadMasks and a data set with coarse masks')
        packed = super().transform(results)
        packed['data_samples'].set_data({
            name: PixelData(data=torch.from_numpy(results[name].astype(np.float32))[None] / 255)
            for name in MASKS if name in results})
        return packed


@TRANSFORMS.register_module()
class KeepOriginal(BaseTransform):
    """Keep the image as loaded, for models that refine at its size.

    ``RefinedSegmentor`` and ``RefinedDetector`` read the file again; images that come from no file
    need this right after loading, and ``'ori_img'`` among the ``meta_keys`` of the transform that
    packs.
    """

    def transform(self, results: dict) -> dict:
        """Add ``ori_img``."""
        results['ori_img'] = results['img'].copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
