"""Which inputs are labeled by windows, and the files of their results."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmseg.models.segmentors import BaseSegmentor

from mmsparse.engine.formats.geojson import GeoJson
from mmsparse.engine.output_folder import OutputFolder
from mmsparse.engine.whole_files import whole_file

from .file import gdal
from .prediction import predict_raster

TIFFS = ('.tif', '.tiff')
# Pixels from which a TIFF that is not georeferenced goes by windows too.
LARGE = 2**26
# What can be written of them, and how the files end.
SUFFIXES = dict(labels='.tif', geojson='.geojson')


def goes_by_windows(file: Path) -> bool:
    """Whether it is a TIFF with a place on Earth, or a large one.

    Without rasterio none is: they are read as other pictures are. What is no raster is left to the
    reader of pictures as well, which says so.
    """
    if file.suffix.lower() not in TIFFS:
        return False
    try:
        with gdal() as rasterio:
            try:
                with rasterio.open(file) as raster:
                    return raster.crs is not None or raster.height * raster.width > LARGE
            except rasterio.errors.RasterioIOError:
                return False
    except ModuleNotFoundError:
        return False


def label_raster(model: BaseSegmentor, file: Path, name: Path, folder: OutputFolder,
                 options: Mapping[str, Any], on_window: Callable[[int, int], object]) -> bool:
    """Write a raster's classes, their outlines, or both, as far as they are not there.

    Args:
        model: of :func:`mmsparse.apis.init_model`.
        file: the raster.
        name: its path below the folder of all inputs.
        folder: with no formats but those of ``SUFFIXES``.
        options: of :func:`.prediction.predict_raster`.
        on_window: as there.

    Returns:
        Whether there was something to write.

    Raises:
        OSError, ValueError: as ``predict_raster``; the raster has no outlines on Earth.
    """
    targets = {key: folder.folder / key / name.with_suffix(SUFFIXES[key])
               for key in folder.formats}
    missing = {key for key, target in targets.items() if folder.force or not target.is_file()}
    if not missing:
        return False
    with TemporaryDirectory(dir=folder.folder, prefix='.') as temporary:
        classes = targets.get('labels', Path(temporary, 'classes.tif'))
        if 'labels' in missing or 'labels' not in targets:
            predict_raster(model, file, classes, on_window=on_window, **options)
        outlines = folder.formats.get('geojson')
        if 'geojson' in missing and isinstance(outlines, GeoJson):
            with whole_file(targets['geojson']) as unfinished:
                outlines.write_raster(classes, unfinished)
    return True
