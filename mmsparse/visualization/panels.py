"""Pictures that explain a refinement: arrays in, arrays out.

Pictures are uint8 BGR ``[H, W, 3]`` as in OpenCV, class maps integer ``[H, W]``, masks bool
``[H, W]``. Letters: ``H, W`` size in pixels, ``K`` classes.
"""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# BGR. Blue and orange are told apart by color-blind readers too, unlike green and red.
FIXED, MADE, LOOKED = (235, 140, 30), (0, 90, 255), (0, 215, 255)
INK, PAPER = (40, 40, 40), (255, 255, 255)
SCORE = 'Entropy in nats'  # what EntropySelector decides by
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def paint_classes(classes: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Class map in the colors of the palette.

    Args:
        classes: class numbers; those outside the palette (such as 255, ignored) become black.
        palette: RGB of every class, as in mmseg's ``METAINFO``.
    """
    k = len(palette)
    colors = np.zeros((k + 1, 3), np.uint8)  # the last one is black
    colors[:k] = np.asarray(palette, np.uint8)[:, ::-1]
    return colors[np.where((classes >= 0) & (classes < k), classes, k).astype(np.intp)]


def paint_mask(image: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """The picture, faded and gray, with the mask in one color."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) // 2 + 100
    out = cv2.merge([gray] * 3)
    out[mask] = color
    return out


def paint_score(score: np.ndarray) -> np.ndarray:
    """Values as colors, from dark blue (lowest) to yellow (highest), in even steps to the eye.

    Args:
        score: float ``[H, W]``, finite.
    """
    low, high = score.min(), score.max()
    share = (score - low) / max(high - low, np.finfo(np.float32).tiny)
    return cv2.applyColorMap((share * 255).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)


def changes(low: np.ndarray, refined: np.ndarray, label: np.ndarray, ignore_index: int = 255
            ) -> tuple[np.ndarray, np.ndarray]:
    """Errors that a refinement fixed and errors that it made.

    Args:
        low, refined, label: class maps before and after, and the truth.
        ignore_index: label of pixels that count as neither.

    Returns:
        Two masks: wrong before and right after; right before and wrong after.
    """
    known = label != ignore_index
    before, after = low == label, refined == label
    return ~before & after & known, before & ~after & known


def liveliest_window(fixed: np.ndarray, made: np.ndarray, size: tuple[int, int]
                     ) -> tuple[slice, slice]:
    """The window of ``size`` (h, w) in which most changed, cut to the picture."""
    height, width = (min(s, n) for s, n in zip(size, fixed.shape, strict=True))
    total = cv2.boxFilter((fixed | made).astype(np.float32), -1, (width, height),
                          normalize=False, borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(total.argmax(), total.shape)
    top = int(np.clip(y - height // 2, 0, fixed.shape[0] - height))
    left = int(np.clip(x - width // 2, 0, fixed.shape[1] - width))
    return slice(top, top + height), slice(left, left + width)


def refinement_panels(image: np.ndarray,
                      low: np.ndarray,
                      selected: np.ndarray,
                      refined: np.ndarray,
                      label: np.ndarray | None = None,
                      *,
                      score: np.ndarray | None = None,
                      score_name: str = SCORE,
                      classes: Sequence[str],
                      palette: Sequence[Sequence[int]],
                      ignore_index: int = 255,
                      window: tuple[slice, slice] | None = None,
                      width: int = 720) -> np.ndarray:
    """What a refinement did to one picture, in titled panels with a legend.

    Args:
        image: the picture.
        low, refined: class maps before and after.
        selected: mask of the pixels that were refined.
        label: the truth; with it, a panel of errors fixed and made.
        score: float ``[H, W]``, what the selector decided by; with it, a panel of its values.
        score_name: what the score is, for that panel's title.
        classes, palette: names and RGB colors.
        ignore_index: label of pixels that have none; they are black, and no error.
        window: show this part only (rows, columns).
        width: of a panel in pixels; its height follows.

    Returns:
        uint8 BGR, two panels wide.
    """
    panels, legend = _refinement(image, low, score, selected, refined, score_name, classes, palette)
    if label is not None:
        fixed, made = changes(low, refined, label, ignore_index)
        difference = paint_mask(image, fixed | made, FIXED)
        difference[made] = MADE
        panels['Ground truth'] = paint_classes(
            np.where(label == ignore_index, -1, label.astype(np.intp)), palette)
        panels[f'Errors fixed ({fixed.mean():.2%}) and made ({made.mean():.2%})'] = difference
        legend += [('error fixed', FIXED), ('error made', MADE)]
    if window is not None:
        panels = {title: panel[window] for title, panel in panels.items()}
    return _sheet(panels, legend, columns=2, width=width)


def refinement_strip(image: np.ndarray,
                     low: np.ndarray,
                     score: np.ndarray,
                     selected: np.ndarray,
                     refined: np.ndarray,
                     *,
                     score_name: str = SCORE,
                     classes: Sequence[str],
                     palette: Sequence[Sequence[int]],
                     width: int = 480) -> np.ndarray:
    """The way of one picture through a refinement, from left to right.

    Args:
        image, low, score, selected, refined: the five panels; as in :func:`refinement_panels`,
            like the other arguments.

    Returns:
        uint8 BGR, five panels wide.
    """
    panels, legend = _refinement(image, low, score, selected, refined, score_name, classes, palette)
    return _sheet(panels, legend, columns=len(panels), width=width)


# Titled pictures, and what the legend explains: name and BGR.
Panels = dict[str, np.ndarray]
Legend = list[tuple[str, Sequence[int]]]


def _refinement(image: np.ndarray, low: np.ndarray, score: np.ndarray | None,
                selected: np.ndarray, refined: np.ndarray, score_name: str,
                classes: Sequence[str], palette: Sequence[Sequence[int]]
                ) -> tuple[Panels, Legend]:
    """What every picture of a refinement shows, in the order in which it happens."""
    panels = {'Image': image, 'Low resolution': paint_classes(low, palette)}
    legend: Legend = list(zip(classes, [tuple(c)[::-1] for c in palette], strict=True))
    if score is not None:
        title = f'{score_name} ({score.min():.2f} to {score.max():.2f})'
        panels[title] = paint_score(score)
        ends = paint_score(np.array([[0., 1.]]))[0]
        legend += [('lowest score', ends[0]), ('highest score', ends[1])]
    panels[f'Where the selector looked ({selected.mean():.1%} of pixels)'] = paint_mask(
        image, selected, LOOKED)
    panels['Refined'] = paint_classes(refined, palette)
    return panels, legend


def _sheet(panels: Panels, legend: Legend, columns: int, width: int) -> np.ndarray:
    """Panels in rows, the last one filled up with paper, above the legend."""
    shown = [_titled(title, _fit(panel, width)) for title, panel in panels.items()]
    shown += [np.full_like(shown[0], PAPER)] * (-len(shown) % columns)
    rows = [np.hstack(shown[k:k + columns]) for k in range(0, len(shown), columns)]
    return np.vstack([*rows, _legend(legend, rows[0].shape[1])])


def _fit(picture: np.ndarray, width: int) -> np.ndarray:
    """Scale to a width; enlarged pixels stay square."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    mode = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=mode)


def _titled(title: str, picture: np.ndarray) -> np.ndarray:
    """The picture under its title, within a margin."""
    head = np.full((34, picture.shape[1], 3), PAPER, np.uint8)
    scale = min(.65, .65 * picture.shape[1] / max(_text_width(title, .65), 1))
    cv2.putText(head, title, (2, 25), _FONT, scale, INK, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(np.vstack([head, picture]), 0, 6, 6, 6, cv2.BORDER_CONSTANT,
                              value=PAPER)


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, _FONT, scale, 1)[0][0]


def _legend(entries: Legend, width: int) -> np.ndarray:
    """Colored squares with names, in as many lines as they need."""
    places, x, y = [], 10, 0
    for name, _ in entries:
        advance = 24 + _text_width(name, .55) + 22
        if x > 10 and x + advance > width:
            x, y = 10, y + 28
        places.append((x, y))
        x += advance
    out = np.full((y + 38, width, 3), PAPER, np.uint8)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        cv2.rectangle(out, (x, y + 8), (x + 16, y + 24), [int(c) for c in color], cv2.FILLED)
        cv2.rectangle(out, (x, y + 8), (x + 16, y + 24), INK, 1)
        cv2.putText(out, name, (x + 24, y + 22), _FONT, .55, INK, 1, cv2.LINE_AA)
    return out
