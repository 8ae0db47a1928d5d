"""One picture and what a model made of it, as a page for a browser: a file that needs no server.

Letters: ``H, W`` size in pixels, ``K`` classes. Pictures are uint8 BGR ``[H, W, 3]`` as in OpenCV,
class maps integer ``[H, W]``. The files in ``web/`` are put into one, with the data as JSON: the
picture as JPEG, maps as deflated rows of numbers. The browser inflates them itself, so no number
passes through a picture format or a canvas, and what the page counts is exact.
"""
from __future__ import annotations

import base64
import json
import string
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmsparse.version import __version__

from .panels import FIXED, LOOKED, MADE

WEB = Path(__file__).with_name('web')
FILES = ('page.html', 'page.css', 'numbers.js', 'picture.js', 'panel.js')
JPEG_QUALITY = 90
# A browser holds a few maps of 4 bytes per pixel at once.
MOST_PIXELS = 64_000_000
LEFT = (200, 60, 190)  # BGR, of an error that was neither fixed nor made


class _Template(string.Template):
    delimiter = '@@'  # the dollar is JavaScript's


@dataclass(frozen=True)
class SelectorScore:
    """What a selector saw, and what it took.

    Attributes:
        values: float32 ``[H, W]``; the greater the score, the sooner a pixel is refined.
        selected: bool ``[H, W]``, the pixels that were refined.
        threshold: pixels of a greater score were selected, as far as a budget allowed.
        highest: the score that no pixel exceeds.
        name: of the score, with its unit.
        threshold_name: as configs call the threshold.
    """

    values: np.ndarray
    selected: np.ndarray
    threshold: float
    highest: float
    name: str
    threshold_name: str

    def steps(self) -> np.ndarray:
        """The thresholds that a page offers: float32, increasing, at most 255.

        Zero, numbers of three digits in even ratios from a ten-thousandth of the highest score up
        to it, and the model's own.
        """
        ladder = [0.0, *(float(f'{value:.3g}') for value in np.geomspace(
            self.highest / 1e4, self.highest, 253))]
        return np.unique(np.asarray([*ladder, self.threshold], np.float32))

    def levels(self) -> np.ndarray:
        """How many of the :meth:`steps` each score exceeds, uint8 ``[H, W]``.

        So ``values > steps()[i]`` is ``levels() > i``: one byte per pixel, and no error at any
        step.
        """
        return np.searchsorted(self.steps(), self.values.astype(np.float32)).astype(np.uint8)

    def stored(self) -> str:
        """What the page says of the numbers it holds."""
        return (f'one byte per pixel: which of {len(self.steps())} thresholds it exceeds; at these '
                'all numbers are exact')

    def described(self) -> dict[str, Any]:
        """Names, and the thresholds in the shortest digits that tell them apart."""
        steps = self.steps()
        return dict(name=self.name, threshold=self.threshold_name,
                    steps=[float(str(step)) for step in steps],
                    own=int(np.searchsorted(steps, np.float32(self.threshold))))


def html_page(image: np.ndarray,
              result: np.ndarray,
              *,
              title: str,
              classes: Sequence[str],
              palette: Sequence[Sequence[int]],
              result_name: str = 'Prediction',
              before: np.ndarray | None = None,
              before_name: str = 'Before',
              label: np.ndarray | None = None,
              ignore_index: int = 255,
              score: SelectorScore | None = None,
              milliseconds: Mapping[str, float] | None = None,
              facts: Mapping[str, str] | None = None) -> str:
    """A page to look at a result, with everything in it: HTML that opens nothing else.

    Args:
        image: the picture.
        result: its class map.
        title: of the page, such as the name of the picture.
        classes, palette: names and RGB colors of the ``K`` classes.
        result_name, before_name: what the two class maps are called.
        before: the class map that ``result`` was refined from.
        label: the truth; the page then counts errors fixed and made, and the recall of the
            selector.
        ignore_index: label of pixels that count nowhere.
        score: of the selector that chose what was refined in ``before``.
        milliseconds: how long each stage took.
        facts: what else is to stand there, such as the names of model and checkpoint.

    Raises:
        ValueError: maps or lists do not belong together, hold numbers that are no classes, or are
            too large for a browser.
    """
    if not classes or len(classes) != len(palette):
        raise ValueError(f'a page needs a color for each class, got {len(palette)} for '
                         f'{len(classes)} classes')
    if score is not None and before is None:
        raise ValueError('the score of a selector belongs to the map that it looked at: before')
    k, (height, width) = len(classes), image.shape[:2]
    if height * width > MOST_PIXELS:
        raise ValueError(f'a page shows up to {MOST_PIXELS / 1e6:g} megapixels, the picture has '
                         f'{height * width / 1e6:.1f}: cut it into parts')
    if label is not None:
        label = np.where(label == ignore_index, k, label.astype(np.int64))
    planes = {name: class_numbers(values, k, name) for name, values in dict(
        result=result, before=before, label=label).items() if values is not None}
    if score is not None:
        planes |= dict(score=score.levels(), selected=score.selected.astype(np.uint8))
    for name, values in planes.items():
        if values.shape != (height, width):
            raise ValueError(f'{name} has {list(values.shape)} pixels, the picture '
                             f'{[height, width]}')
    data = dict(
        title=title, width=width, height=height, classes=list(map(str, classes)),
        colors=np.asarray(palette, int).tolist(),
        wide=k > 255,  # two bytes per class number
        names=dict(result=result_name, before=before_name),
        paint={name: list(color[::-1]) for name, color in dict(
            selected=LOOKED, fixed=FIXED, made=MADE, left=LEFT).items()},
        score=None if score is None else score.described(),
        viridis=cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_VIRIDIS)[
            0, :, ::-1].tolist(),
        milliseconds=dict(milliseconds or {}),
        facts=dict(facts or {}) | {
            'picture': f'{width} x {height} pixels; shown as JPEG of quality {JPEG_QUALITY}',
            **({} if score is None else {'score': score.stored()}),
            'made by': f'mmsparse {__version__}'},
        image=_text(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                    .tobytes()),
        planes={name: _text(zlib.compress(values.tobytes(), 6))
                for name, values in planes.items()})
    html, css, *js = ((WEB / name).read_text(encoding='utf-8') for name in FILES)
    # '<' would end the script element that holds the data.
    return _Template(html).substitute(
        css=css, js='\n'.join(js), data=json.dumps(data).replace('<', '\\u003c'))


def class_numbers(values: np.ndarray, k: int, name: str) -> np.ndarray:
    """A class map in one byte per pixel, two (little-endian) from 256 classes on.

    Args:
        values: integers; ``k`` in a ``label`` stands for a pixel that has none.
        name: of the map.

    Raises:
        ValueError: a number is no class.
    """
    if values.min() < 0 or values.max() > (k if name == 'label' else k - 1):
        raise ValueError(f'{name} holds numbers from {values.min()} to {values.max()}; classes are '
                         f'0 to {k - 1}')
    return values.astype(np.uint8 if k < 256 else '<u2')


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
