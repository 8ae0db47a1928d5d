"""Pictures larger than memory, labeled window by window.

Letters: ``H, W`` size of the picture, ``K`` classes; ``h, w`` low-resolution size.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mmseg.models.segmentors import BaseSegmentor

from mmsparse.models.sparserefine import SparseRefineSegmentor

from .field_of_view import STRIDES
from .file import RasterReader, class_raster, gdal
from .windows import Overlap, RefinedWindows, Windows

WINDOW = 1024


class RasterResult(NamedTuple):
    """How a raster was labeled.

    Attributes:
        windows: how many the network was run on; those without data are left out.
        overlap: of the windows at full size.
        exact: whether the classes are those of the picture in one piece, up to rounding.
    """

    windows: int
    overlap: Overlap
    exact: bool


def predict_raster(model: BaseSegmentor, path: str | Path, out: str | Path, *,
                   window: int = WINDOW, halo: int | None = None,
                   bands: Sequence[int] | None = None, white: float | None = None,
                   on_window: Callable[[int, int], object] = lambda done, total: None
                   ) -> RasterResult:
    """Label a raster of any size, in memory that depends on ``window`` alone.

    Windows overlap; of each, the core is kept. What comes out is the result of the picture in one
    piece, padded on the right and at the bottom to a multiple of the network's stride, where the
    network sees no farther than the halo; else an approximation, and a warning says so.

    SparseRefine's low-resolution pass has windows of its own, ``window`` pixels at its scale, which
    see ``1 / low_res_scale ** 2`` of the area; it is run once on the whole picture where that is no
    larger. The refinement then reads the scores of the part that it is in.

    The config's test pipeline is not run: pixels are taken at the raster's own scale.

    Args:
        model: from :func:`mmsparse.apis.init_model`.
        path: of the raster.
        out: GeoTIFF of class numbers to write, or write over: :func:`.file.class_raster`.
            255 (65535 from 256 classes on) where the raster has no data.
        window: side of the squares that a network sees at a time, in pixels.
        halo: pixels on each side of a window that are seen and not kept; rounded up to a multiple
            of the stride. ``None``: the field of view as :func:`.field_of_view.field_of_view`
            measures it (of SparseRefine's refinement: as its depth says), or an eighth of the
            window if that is more than a quarter of it.
        bands, white: of :class:`.file.RasterReader`.
        on_window: called after each core with how many are done, and of how many.

    Raises:
        OSError: the raster cannot be read, or the result not be written.
        TypeError: the model is no segmentor.
        ValueError: the model or an argument does not allow windows, or the raster needs ``bands``
            or ``white``; nothing is written.
        ModuleNotFoundError: rasterio is not installed.
    """
    if not isinstance(model, BaseSegmentor):
        raise TypeError(f'{type(model).__name__} is no segmentor: objects that windows cut are not '
                        'joined, so that rasters are labeled by segmentors of mmseg alone')
    if window < 1 or window % STRIDES[0] or (halo is not None and halo < 0):
        raise ValueError(f'window must be a multiple of {STRIDES[0]}, and halo not negative, got '
                         f'{window} and {halo}')
    path, out = Path(path), Path(out)
    classes = model.dataset_meta['classes']
    palette = model.dataset_meta.get('palette')
    with gdal() as rasterio, rasterio.open(path) as dataset:
        reader = RasterReader(dataset, bands, white)
        labeler = (RefinedWindows if isinstance(model, SparseRefineSegmentor) else Windows)(
            model, reader, window, halo)
        if not labeler.exact:
            warnings.warn(f'{path}: {labeler.why}; windows overlap by {labeler.overlap.halo} '
                          'pixels on each side, and near their seams the result is an '
                          'approximation',
                          stacklevel=2)
        count = 0
        with class_raster(out, dataset, len(classes), labeler.side, palette) as raster:
            for done, (core, answer) in enumerate(labeler, 1):
                if answer is not None:
                    count += 1
                    raster.write(answer, core)
                on_window(done, labeler.total)
        if reader.cut:
            warnings.warn(f'{path}: {reader.cut} values outside 0 to {white:g} were cut off, those '
                          'in the overlap of windows more than once', stacklevel=2)
    return RasterResult(count, labeler.overlap, labeler.exact)
