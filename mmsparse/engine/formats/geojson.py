"""Predictions as outlines on the map."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat

if TYPE_CHECKING:
    from mmsparse.engine.prediction import Prediction

WGS84 = 'EPSG:4326'
DIGITS = 9  # of degrees: a tenth of a millimeter
HEAD, TAIL = b'{"type": "FeatureCollection", "features": [\n', b'\n]}\n'


class GeoJson(OutputFormat):
    """GeoJSON of a georeferenced raster: longitude and latitude of the outlines, in WGS 84.

    A feature is a connected area of a class, along the edges of pixels, with ``class`` (the
    number, from 0) and ``name``; of a detector an object, with its ``score`` too.

    Source: RFC 7946
    """

    suffix = '.geojson'

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's outlines.

        Raises:
            ValueError: the picture is no raster with a place on Earth.
        """
        from mmsparse.engine.raster_file import gdal

        with gdal() as rasterio:
            try:
                with rasterio.open(prediction.file) as raster:
                    place = Place(raster)
            except rasterio.errors.RasterioIOError as error:
                raise ValueError(f'{prediction.file} is no raster with a place on Earth: {error}'
                                 ) from error
            found: list[bytes] = []
            if prediction.has_class_map:
                classes = prediction.class_map(len(self.classes), no_class=-1).astype(np.int32)
                found.extend(self.features(classes, place, -1))
            else:
                for region in prediction.regions(len(self.classes)):
                    left, top, width, height = (round(n) for n in region.box)
                    inside = np.full(prediction.size, -1, np.int32)
                    if region.mask is None:
                        inside[max(top, 0):top + height, max(left, 0):left + width] = region.label
                    else:
                        inside[coco.decode(region.mask) > 0] = region.label
                    found.extend(self.features(inside, place, -1, score=region.score))
        return HEAD + b',\n'.join(found) + TAIL

    def features(self, classes: Any, place: Place, no_class: int, **properties: float | None
                 ) -> Iterator[bytes]:
        """Features of a class map.

        Args:
            classes: int32, uint8 or uint16 ``[H, W]``, or a band of a raster (``rasterio.band``).
            place: where it lies.
            no_class: number that is none.
            **properties: of each feature, besides its class.
        """
        from rasterio.features import shapes

        for outline, number in shapes(classes, transform=place.transform):
            label = int(number)
            if label != no_class:
                yield json.dumps(dict(
                    type='Feature', geometry=place.on_earth(outline),
                    properties=dict({'class': label}, name=self.classes[label], **properties),
                )).encode()

    def write_raster(self, source: Path, target: Path) -> None:
        """Outlines of a class raster, whose nodata value is no class, feature by feature.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: it has no place on Earth.
        """
        from mmsparse.engine.raster_file import gdal

        with gdal() as rasterio, rasterio.open(source) as raster, target.open('wb') as file:
            file.write(HEAD)
            for i, feature in enumerate(self.features(
                    rasterio.band(raster, 1), Place(raster), int(raster.nodata))):
                file.write(b',\n' * bool(i) + feature)
            file.write(TAIL)


class Place:
    """Where a raster lies on Earth.

    Args:
        raster: opened by rasterio.

    Attributes:
        transform: from columns and rows to its own coordinates.

    Raises:
        ValueError: it does not tell.
    """

    def __init__(self, raster: Any) -> None:
        self.transform, self.crs = raster.transform, raster.crs
        if self.crs is None or self.transform.is_identity:
            raise ValueError(f"{raster.name} is not georeferenced (no CRS or no transform), which "
                             "the output format 'geojson' needs")

    def on_earth(self, polygon: dict) -> dict:
        """A polygon in WGS 84: outer rings counterclockwise, holes clockwise."""
        from rasterio.warp import transform_geom

        moved = transform_geom(self.crs, WGS84, polygon, precision=DIGITS)
        rings = [ring if (area(ring) > 0) == (i == 0) else ring[::-1]
                 for i, ring in enumerate(moved['coordinates'])]
        return dict(type='Polygon', coordinates=rings)


def area(ring: list) -> float:
    """Twice the area inside a closed ring, positive if it is counterclockwise."""
    x, y = np.array(ring, float).T
    x, y = x - x[0], y - y[0]  # degrees are large beside a pixel
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
