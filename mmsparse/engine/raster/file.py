"""Rasters (TIFF, GeoTIFF, whatever GDAL opens) read and written by windows.

Needs rasterio: ``pip install "mmsparse[raster]"``. Letters: ``H, W`` size, ``h, w`` of a window.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsparse.engine.whole_files import whole_file
from mmsparse.models.crm.sampling import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

# What GDAL may keep of decoded and unwritten blocks, in MiB: 1024 rows of 30,000 RGB pixels of 16
# bits, so that strips are decoded once.
CACHE = 256
COLORS = ('red', 'green', 'blue')


@contextmanager
def gdal() -> Iterator[Any]:
    """The module ``rasterio``, its cache bounded, silent about pictures without a place on Earth.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import warnings

    try:
        import rasterio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'rasters are read by rasterio, {error}: pip install "mmsparse[raster]"') from error
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        yield rasterio


class RasterReader:
    """A raster as a model sees it: uint8 BGR and which pixels hold data, window by window.

    - One band is gray, or colors by its palette. Three are red, green and blue: as the file says,
      else in this order. Of other numbers ``bands`` has to say which they are. A band of alpha is
      no color: where it is 0 there is no data.
    - 8 bits are taken as they are. Of others ``white`` has to say which value becomes 255, as 0
      stays 0; what lies outside is cut off and counted.
    - No data is where the file's nodata value, mask or alpha says so, and where a number is not
      finite. The model sees black there.
    - Rows are taken as stored.

    Args:
        dataset: opened by rasterio.
        bands: numbers from 1 of the gray band, or of red, green and blue.
        white: see above.

    Attributes:
        size: ``(H, W)``.
        cut: how many values were outside 0 to ``white``, in windows read so far.

    Raises:
        ValueError: bands or white are missing, or are no such numbers.
    """

    def __init__(self, dataset: DatasetReader, bands: Sequence[int] | None = None,
                 white: float | None = None) -> None:
        self.dataset = dataset
        self.size = dataset.height, dataset.width
        self.bands = self._chosen(bands)
        self.palette = self._palette() if len(self.bands) == 1 else None
        kinds = {dataset.dtypes[band - 1] for band in self.bands}
        self.white = None if kinds == {'uint8'} else white
        if kinds != {'uint8'} and white is None:
            raise ValueError(f'{dataset.name} holds {" and ".join(sorted(kinds))} numbers; '
                             'pictures have 8 bits. Say which value is white (--white)')
        if white is not None and not white > 0:
            raise ValueError(f'white must be positive, got {white}')
        self.cut = 0

    def _chosen(self, bands: Sequence[int] | None) -> list[int]:
        """The bands to read: gray, or red, green and blue."""
        kinds = {band: kind.name for band, kind in zip(
            self.dataset.indexes, self.dataset.colorinterp, strict=True)}
        if bands is not None:
            if len(bands) not in (1, 3) or not set(bands) <= kinds.keys():
                raise ValueError(f'{self.dataset.name} has the bands 1 to {len(kinds)}: name one, '
                                 f'or red, green and blue, got {list(bands)}')
            return list(bands)
        colors = [band for band, kind in kinds.items() if kind != 'alpha']
        if len(colors) not in (1, 3):
            raise ValueError(f'{self.dataset.name} has {len(colors)} bands: say which are red, '
                             'green and blue (--bands 3 2 1), or which one to take for gray')
        if {kinds[band] for band in colors} == set(COLORS):
            colors.sort(key=lambda band: COLORS.index(kinds[band]))
        return colors

    def _palette(self) -> np.ndarray | None:
        """Colors of a band's values, RGB uint8 ``[256, 3]``, if it has a palette."""
        band, = self.bands
        if self.dataset.colorinterp[band - 1].name != 'palette':
            return None
        palette = np.zeros((256, 3), np.uint8)
        for value, color in self.dataset.colormap(band).items():
            palette[value] = color[:3]
        return palette

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read the part of a window that lies in the raster, from its top left corner on.

        Returns:
            The picture, uint8 BGR ``[h, w, 3]``, and where there is data, bool ``[h, w]``.

        Raises:
            OSError: the file cannot be read there.
        """
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        inside = window.grown(0, self.size)
        part = Part(inside.left, inside.top, *inside.size[::-1])
        try:
            pixels = self.dataset.read(self.bands, window=part)
            valid = self.dataset.dataset_mask(window=part) > 0
        except RasterioError as error:
            raise OSError(f'{self.dataset.name} cannot be read at row {inside.top}, column '
                          f'{inside.left}, or is cut off: {error.__cause__ or error}') from error
        if self.palette is not None:
            pixels = self.palette[pixels[0]].transpose(2, 0, 1)
        elif self.white is not None:
            finite = np.isfinite(pixels).all(0)
            valid &= finite
            scaled = np.where(finite, pixels, 0).astype(np.float64) * (255 / self.white)
            self.cut += int(((scaled < 0) | (scaled > 255))[:, valid].sum())
            pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        image = np.broadcast_to(pixels, (3, *inside.size))[::-1].transpose(1, 2, 0).copy()
        image[~valid] = 0
        return image, valid


class ClassRaster:
    """A raster of class numbers, written by windows, each pixel once.

    Args:
        raster: open for writing.

    Attributes:
        checksum: sum of what was written, less the nodata value: that of blocks never written is 0.
    """

    def __init__(self, raster: DatasetWriter) -> None:
        self.raster = raster
        self.checksum = 0

    def write(self, classes: np.ndarray, window: Window) -> None:
        """Write class numbers, -1 for no data, ``[h, w]``."""
        from rasterio.windows import Window as Part

        nodata = int(self.raster.nodata)
        numbers = np.where(classes < 0, nodata, classes)
        self.checksum += int((numbers - nodata).sum())
        self.raster.write(numbers.astype(self.raster.dtypes[0]), 1,
                          window=Part(window.left, window.top, *window.size[::-1]))


@contextmanager
def class_raster(path: Path, like: DatasetReader, num_classes: int, side: int,
                 palette: Sequence[Sequence[int]] | None) -> Iterator[ClassRaster]:
    """A raster of class numbers to write; it appears when it is complete.

    8 bits for up to 255 classes, else 16; its nodata value is the highest number, which also stands
    where nothing is written. Tiled, compressed (deflate), a BigTIFF where it may need to be, with
    the colors of the classes. It is read once when it is complete: GDAL does not say when a disk is
    full.

    Args:
        path: of the file.
        like: has the same size, coordinates (CRS, transform, ground control points).
        num_classes: how many there are.
        side: of the squares that will be written, a multiple of 16 pixels; tiles divide it, so that
            each is compressed once.
        palette: colors of the classes, RGB.

    Raises:
        OSError: it cannot be written.
    """
    import rasterio
    from rasterio.errors import RasterioError

    dtype, tile = ('uint8' if num_classes < 256 else 'uint16'), math.gcd(side, 512)
    nodata = int(np.iinfo(dtype).max)
    points, points_crs = like.gcps
    place = dict(gcps=points, crs=points_crs) if points else dict(
        crs=like.crs, transform=like.transform)
    with whole_file(path) as unfinished:
        try:
            with rasterio.open(
                    unfinished, 'w', driver='GTiff', height=like.height, width=like.width, count=1,
                    dtype=dtype, nodata=nodata, tiled=True, blockxsize=tile, blockysize=tile,
                    compress='deflate', bigtiff='IF_SAFER', **place) as raster:
                if palette is not None and dtype == 'uint8':
                    raster.write_colormap(1, dict(enumerate(map(tuple, palette))))
                classes = ClassRaster(raster)
                yield classes
            with rasterio.open(unfinished) as raster:
                found = sum(int((raster.read(1, window=part).astype(np.int64) - nodata).sum())
                            for _, part in raster.block_windows(1))
        except RasterioError as error:
            raise OSError(f'{path} cannot be written: {error.__cause__ or error}') from error
        if found != classes.checksum:
            raise OSError(f'{path} cannot be written: what was read back differs; is the disk '
                          'full?')
