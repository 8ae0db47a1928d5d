"""Predictions as outlines on the map."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat

if TYPE_CHECKING:
    from mmsparse.engine.prediction import Prediction

WGS84 = 'EPSG:4326'
DIGITS = 9  # of degrees: a tenth of a millimeter
TOGETHER = 1000  # polygons that are moved to WGS 84 at a time: the way there is looked up for each
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
        from mmsparse.engine.raster.file import gdal

        with gdal() as rasterio:
            try:
                with rasterio.open(prediction.file) as raster:
                    place = Place(raster)
            except rasterio.errors.RasterioIOError as error:
                raise ValueError(f'{prediction.file} is no raster with a place on Earth: {error}'
                                 ) from error
            found: list[bytes] = []
            if prediction.is_semantic or prediction.is_panoptic:
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

        found = ((outline['coordinates'], int(number)) for outline, number in shapes(
            classes, transform=place.transform) if number != no_class)
        while some := list(islice(found, TOGETHER)):
            for rings, (_, label) in zip(place.on_earth([o for o, _ in some]), some, strict=True):
                yield json.dumps(dict(
                    type='Feature', geometry=dict(type='Polygon', coordinates=rings),
                    properties=dict({'class': label}, name=self.classes[label], **properties),
                )).encode()

    def write_raster(self, source: Path, target: Path) -> None:
        """Outlines of a class raster, whose nodata value is no class, feature by feature.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: it has no place on Earth.
        """
        from mmsparse.engine.raster.file import gdal

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

    def on_earth(self, polygons: Sequence[list]) -> list[list]:
        """Polygons in WGS 84.

        Args:
            polygons: each a list of rings, of which the first is the outer one; a ring is a list of
                x, y, the last equal to the first.

        Returns:
            The same in longitude and latitude; outer rings counterclockwise, holes clockwise.
        """
        from rasterio.warp import transform

        rings = [np.array(ring) for polygon in polygons for ring in polygon]
        x, y = np.concatenate(rings).T
        moved = np.round(np.stack(transform(self.crs, WGS84, x, y)[:2], 1), DIGITS)
        parts = iter(np.split(moved, np.cumsum([len(ring) for ring in rings])[:-1]))
        return [[(ring if (area(ring) > 0) == (i == 0) else ring[::-1]).tolist()
                 for i, ring in zip(range(len(polygon)), parts, strict=False)]
                for polygon in polygons]


def area(ring: np.ndarray) -> float:
    """Twice the area inside a closed ring ``[N, 2]``, positive if it is counterclockwise."""
    x, y = (ring - ring[0]).T  # degrees are large beside a pixel
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
