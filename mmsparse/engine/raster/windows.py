"""Windows of a raster, how they overlap, and what a segmentor answers for them.

Letters: ``H, W`` size of the raster, ``K`` classes, ``h, w`` size of a window.
"""
from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.models.crm import RefinedSegmentor
from mmsparse.models.crm.sampling import Window
from mmsparse.models.sparserefine import SparseRefineSegmentor, SparseUNet
from mmsparse.sparse import BoundarySelector

from .field_of_view import STRIDES, FieldOfView, field_of_view
from .file import RasterReader

SELECTOR_REACH = 2  # of the LearnableSelector's convolutions, in pixels


class Overlap(NamedTuple):
    """How windows of a picture overlap.

    Attributes:
        halo: pixels that a window sees on each side beyond those it answers.
        stride: windows begin at multiples of it, in pixels; the picture is padded to one.
        exact: whether the halo holds all that an answer depends on.
    """

    halo: int
    stride: int
    exact: bool


def overlap_of(view: FieldOfView | None, stride: int, window: int, halo: int | None) -> Overlap:
    """How windows overlap for a network.

    Args:
        view: what it sees; ``None`` if that is not known.
        stride: where windows may begin, a multiple of the network's.
        window, halo: of :func:`predict_raster`.

    Raises:
        ValueError: the window is no multiple of the stride, or nothing is left of it.
    """
    if window % stride:
        raise ValueError(f'window must be a multiple of {stride} for this model, got {window}')
    if halo is None:
        halo = view.reach if view is not None and 4 * view.reach <= window else window // 8
    halo = round_up(halo, stride)
    if 2 * halo >= window:
        raise ValueError(f'window must be more than twice the halo, got {window} and {halo} (a '
                         f'halo is a multiple of {stride})')
    return Overlap(halo, stride, view is not None and halo >= view.reach)


def measured(model: BaseSegmentor, window: int) -> FieldOfView | None:
    """What a segmentor sees; ``None`` if it is more than windows can hold, or not to be told."""
    if isinstance(model, RefinedSegmentor) or slides(model):
        return None
    return field_of_view(model, window)


def slides(model: BaseSegmentor) -> bool:
    """Whether it has sliding windows of its own."""
    return (model.test_cfg or {}).get('mode') == 'slide'


def what_sees_far(model: BaseSegmentor) -> str:
    """Why windows do not give what the whole picture would give."""
    if isinstance(model, RefinedSegmentor):
        return 'CRM refines objects, and windows cut them'
    if slides(model):
        return "the model has test_cfg.mode='slide', windows of its own that begin elsewhere"
    return 'the network sees farther than windows overlap'


def round_up(n: int, stride: int) -> int:
    """``n`` or the next multiple of ``stride``."""
    return -(-n // stride) * stride


def cores(region: Window, side: int) -> Iterator[Window]:
    """Squares of a region, row by row; the last ones of rows and columns may be smaller."""
    for top in range(region.top, region.bottom, side):
        for left in range(region.left, region.right, side):
            yield Window(top, left, min(top + side, region.bottom), min(left + side, region.right))


def around(core: Window, size: tuple[int, int], halo: int, window: int) -> Window:
    """A core with its halo, in a padded picture: moved inside, so that windows have one size."""
    top, left = (max(min(start - halo, n - window), 0)
                 for start, n in zip(core[:2], size, strict=True))
    return Window(top, left, min(top + window, size[0]), min(left + window, size[1]))


def times(window: Window, factor: Fraction) -> Window:
    """The same part of a picture that is ``factor`` times as large; corners are whole numbers."""
    return Window(*(int(n * factor) for n in window))


def prepared(model: BaseSegmentor, image: np.ndarray, size: tuple[int, int]) -> dict:
    """What mmseg's preprocessor makes of a window, padded to a size.

    Args:
        image: uint8 BGR ``[h, w, 3]``, the part of it that is a picture.
        size: of the window.

    Returns:
        ``inputs`` ``[1, 3, *size]``, and ``data_samples`` that know of the padding.
    """
    preprocessor = copy.copy(model.data_preprocessor)
    preprocessor.test_cfg = dict(size=size)
    shape = image.shape[:2]
    sample = SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape))
    sample.set_field(image, 'ori_img', field_type='metainfo')  # RefinedSegmentor looks at it
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return preprocessor(dict(inputs=[pixels], data_samples=[sample]), False)


class Windows:
    """A segmentor's answers for the windows of a raster, one after the other.

    Args:
        model: the segmentor.
        reader: of the raster.
        window, halo: of :func:`predict_raster`.

    Attributes:
        overlap: of the windows.
        exact: whether the answers are those of the whole picture.
        why: if not, the reason.
        size: ``(H, W)``, padded.
        side: of the cores, in pixels.
        total: number of the cores.
    """

    def __init__(self, model: BaseSegmentor, reader: RasterReader, window: int, halo: int | None
                 ) -> None:
        self.model = model
        self.reader = reader
        self.window = window
        self.plan(halo)
        self.size = self.padded(self.overlap.stride)
        self.side = window - 2 * self.overlap.halo
        self.total = math.prod(-(-n // self.side) for n in reader.size)

    def padded(self, stride: int) -> tuple[int, int]:
        """``(H, W)`` of the raster, padded to a multiple."""
        height, width = self.reader.size
        return round_up(height, stride), round_up(width, stride)

    def fits(self, stride: int) -> bool:
        """Whether the padded raster is one window."""
        return max(self.padded(stride)) <= self.window

    def plan(self, halo: int | None) -> None:
        """Set ``overlap``, ``exact`` and ``why``."""
        view = None if self.fits(STRIDES[0]) else measured(self.model, self.window)
        stride = STRIDES[0] if view is None else view.stride
        self.overlap = (Overlap(0, stride, True) if self.fits(stride) else
                        overlap_of(view, stride, self.window, halo))
        self.exact = self.overlap.exact
        self.why = what_sees_far(self.model)

    def cores(self) -> Iterator[Window]:
        """What is kept of each window; together the raster."""
        yield from cores(Window(0, 0, *self.reader.size), self.side)

    def __iter__(self) -> Iterator[tuple[Window, np.ndarray | None]]:
        """Cores and their classes, int64 ``[h, w]``, -1 without data; ``None`` if there is none."""
        for core in self.cores():
            outer = around(core, self.size, self.overlap.halo, self.window)
            image, valid = self.reader.read(outer)
            kept = core.relative_to(outer)
            has_data = kept.of(valid)
            yield core, (np.where(has_data, kept.of(self.classes(image, outer)), -1)
                         if has_data.any() else None)

    @torch.no_grad()
    def classes(self, image: np.ndarray, outer: Window) -> np.ndarray:
        """Classes of a window.

        Args:
            image: uint8 BGR ``[h, w, 3]``, the part of it that is a picture.
            outer: the window.

        Returns:
            int64 ``[h, w]``.
        """
        sample, = self.model(**self.prepare(image, outer), mode='predict')
        return sample.pred_sem_seg.data[0].long().cpu().numpy()

    def prepare(self, image: np.ndarray, outer: Window) -> dict:
        """What the model is given; arguments as of :meth:`classes`."""
        return prepared(self.model, image, outer.size)


class RefinedWindows(Windows):
    """A SparseRefine model's answers: low-resolution scores of a part of the raster, then windows.

    A part is the whole raster, or as many cores as a window of the low-resolution pass has room
    for.
    """

    model: SparseRefineSegmentor
    scores: Tensor | None  # of the part, once they are asked for

    def plan(self, halo: int | None) -> None:
        """As of :class:`Windows`; and how the low-resolution pass goes."""
        model = self.model
        refuse_settings(model)
        self.scale = scale = Fraction(model.low_res_scale).limit_denominator(64)
        whole = max(self.reader.size) * scale <= self.window
        view = None if whole else measured(model.segmentor, self.window)
        # The smallest stride at full size that is one of the U-Net and, scaled, of the segmentor.
        unit = (STRIDES[0] if view is None else view.stride) * scale.denominator
        extractor = model.decode_head.extractor
        deepest = 2 ** (extractor.num_levels - 1)
        stride = math.lcm(unit // math.gcd(scale.numerator, unit), deepest)
        low_stride = int(stride * scale)
        # Also what a pixel's scores are read from, where they are interpolated.
        reach = extractor.reach + SELECTOR_REACH + math.ceil(1 / scale)
        self.overlap = (Overlap(0, stride, True) if self.fits(stride) else overlap_of(
            FieldOfView(reach, deepest), stride, self.window, halo))
        self.side = self.window - 2 * self.overlap.halo
        if whole:
            self.low_window = math.ceil(max(self.padded(stride)) * scale)
            self.low, self.part_side = Overlap(0, low_stride, True), max(self.padded(stride))
        else:
            self.low_window = self.window // low_stride * low_stride
            self.low = overlap_of(view, low_stride, self.low_window, halo)
            room = int((self.low_window - 2 * self.low.halo) / scale) - 2 * self.overlap.halo
            self.part_side = room // self.side * self.side
        if self.part_side < self.side:
            raise ValueError(
                f'window must have room for halos of {self.low.halo} pixels at low resolution and '
                f'{self.overlap.halo} at full size, got {self.window}')
        self.exact = self.low.exact and self.overlap.exact and model.selector.max_density is None
        self.why = (f'at low resolution, {what_sees_far(model.segmentor)}' if not self.low.exact
                    else f'the sparse U-Net sees {reach} pixels far' if not self.overlap.exact
                    else 'selector.max_density holds window by window')

    def cores(self) -> Iterator[Window]:
        """As of :class:`Windows`, part by part."""
        for part in cores(Window(0, 0, *self.reader.size), self.part_side):
            self.part, self.scores = part, None
            yield from cores(part, self.side)

    def prepare(self, image: np.ndarray, outer: Window) -> dict:
        """As of :class:`Windows`, with the low-resolution scores."""
        if self.scores is None:
            self.scores = self.low_resolution()
        data = super().prepare(image, outer)
        part = times(outer, self.scale).relative_to(self.low_outer)
        data['data_samples'][0].low_res_scores = PixelData(data=part.of(self.scores)[0])
        return data

    @torch.no_grad()
    def low_resolution(self) -> Tensor:
        """Scores ``[1, K, h, w]`` of the part and what its windows see; sets ``low_outer``."""
        size = times(Window(0, 0, *self.size), self.scale).size
        seen = self.part.grown(self.overlap.halo, self.size)
        self.low_outer = around(times(seen, self.scale), size, self.low.halo, self.low_window)
        full = times(self.low_outer, 1 / self.scale)
        image, _ = self.reader.read(full)
        inputs = prepared(self.model, image, full.size)['inputs']
        return self.model.low_scores(inputs, self.low_outer.size)


def refuse_settings(model: SparseRefineSegmentor) -> None:
    """Refuse what is defined by the size of a whole picture.

    Raises:
        ValueError: the model has such a setting.
    """
    if model.low_res_size is not None:
        raise ValueError(f'model.low_res_size is {model.low_res_size}, but a raster has any size: '
                         'set it to None, and model.low_res_scale to the share that it is')
    if model.low_res_flips:
        raise ValueError(f'model.low_res_flips is {model.low_res_flips}, but the cells of a '
                         'flipped picture begin at its far side, which a window does not see: set '
                         'it to ()')
    if model.selector.max_points is not None:
        raise ValueError('model.selector.max_points is a number for a whole picture: set '
                         'max_density, a share of each window, instead')
    if isinstance(model.selector, BoundarySelector):
        raise ValueError("a BoundarySelector's radius is a share of a whole picture: use an "
                         'EntropySelector')
    if model.upsample == 'bilinear' and model.align_corners:
        raise ValueError("upsample='bilinear' with align_corners=True moves pixels by the size of "
                         "the whole picture: set model.upsample='nearest'")
    if not isinstance(model.decode_head.extractor, SparseUNet):
        raise ValueError('how far the extractor sees is known of a SparseUNet alone, got '
                         f'{type(model.decode_head.extractor).__name__}')
