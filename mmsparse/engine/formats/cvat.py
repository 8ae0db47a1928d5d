"""Predictions for CVAT."""
from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco

from .base import OutputFormat
from .pictures import encode_picture

if TYPE_CHECKING:
    from mmengine.model import BaseModel

    from mmsparse.engine.prediction import Prediction

MAX_OBJECTS = 255  # colors that Datumaro, which reads the archive in CVAT, tells apart
BACKGROUND = 'background'


def voc_color(number: int) -> tuple[int, int, int]:
    """The color of a number in Pascal VOC's masks, RGB: its bits, dealt out to the channels."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
    return color[0], color[1], color[2]


class Cvat(OutputFormat):
    """One archive for CVAT's import as "Segmentation mask 1.1", in Pascal VOC's layout.

    Of every picture a mask in the colors of the classes and one of the objects, which of a
    segmentor are the parts of a class in the picture together. Of objects that overlap the one of
    the higher score is seen. What has no class is ``background``. The colors are those of the
    classes where they are different and none is black, else Pascal VOC's.

    Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask/
    """

    suffix = '.zip'
    document = 'cvat.zip'

    def __init__(self, model: BaseModel) -> None:
        super().__init__(model)
        if wrong := [name for name in self.classes if ':' in name or '\n' in name]:
            raise ValueError(f"the output format 'cvat' cannot hold the class names {wrong}: a "
                             'colon ends a name there')
        colors = set(self.palette)
        if len(colors) < len(self.classes) or (0, 0, 0) in colors:
            self.palette = [voc_color(label + 1) for label in range(len(self.classes))]
        self.palette = [(0, 0, 0) if name == BACKGROUND else color
                        for name, color in zip(self.classes, self.palette, strict=True)]

    def encode(self, prediction: Prediction) -> bytes:
        """The picture's two masks, in an archive."""
        regions = [region for region in prediction.regions(len(self.classes))
                   if self.classes[region.label] != BACKGROUND]
        if len(regions) > MAX_OBJECTS:
            raise ValueError(f'{len(regions)} objects were found; the masks of the output format '
                             f"'cvat' tell {MAX_OBJECTS} apart: raise --score-thr")
        masks = np.zeros((2, *prediction.size, 3), np.uint8)
        for number, region in enumerate(sorted(regions, key=lambda r: r.score or 0), 1):
            if region.mask is None:
                left, top, width, height = (round(n) for n in region.box)
                inside = np.s_[max(top, 0):top + height, max(left, 0):left + width]
            else:
                inside = coco.decode(region.mask).astype(bool)
            masks[0][inside] = self.palette[region.label]
            masks[1][inside] = voc_color(number)
        name = prediction.name.with_suffix('.png').as_posix()
        return archive((f'{folder}/{name}', encode_picture('.png', mask[..., ::-1]))
                       for folder, mask in zip(
                           ('SegmentationClass', 'SegmentationObject'), masks, strict=True))

    def join(self, parts: Iterable[bytes]) -> bytes:
        """All masks, with the list of pictures and the colors."""
        names: list[str] = []

        def files() -> Iterable[tuple[str, bytes]]:
            for part in parts:
                with zipfile.ZipFile(io.BytesIO(part)) as masks:
                    for name in masks.namelist():
                        yield name, masks.read(name)
                names.append(name.partition('/')[2].removesuffix('.png'))
            yield 'ImageSets/Segmentation/default.txt', ''.join(f'{n}\n' for n in names).encode()
            colors = {BACKGROUND: (0, 0, 0)} | dict(zip(self.classes, self.palette, strict=True))
            yield 'labelmap.txt', '\n'.join(
                ['# label:color_rgb:parts:actions',
                 *(f'{name}:{r},{g},{b}::' for name, (r, g, b) in colors.items()), '']).encode()

        return archive(files())


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip archive of files, each with its name; the same for the same files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as target:
        for name, data in files:
            target.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()
