"""What every level of an output pyramid says, and what is taken from it: arrays in, arrays out.

As figure A in the supplement of Specialize and Fuse (ICCV 2021). Pictures are uint8 BGR ``[H, W,
3]``, class maps integer ``[H, W]``, masks bool ``[H, W]``, all of one size.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .panels import LOOKED, MADE, Legend, Panels, _sheet, paint_classes

DONE = (190, 190, 190)


@dataclass(frozen=True)
class LevelMaps:
    """One level, enlarged to pixels.

    Attributes:
        stride: of its cells.
        classes: class map.
        unity: cells predicted to be of one class; ``None`` for the finest level.
        done: cells within a unity cell of a coarser level: nothing is taken from them.
    """

    stride: int
    classes: np.ndarray
    unity: np.ndarray | None
    done: np.ndarray

    @property
    def taken(self) -> np.ndarray:
        """Pixels that get their class from this level."""
        return ~self.done if self.unity is None else self.unity & ~self.done


def pyramid_panels(image: np.ndarray,
                   levels: Sequence[LevelMaps],
                   fused: np.ndarray,
                   label: np.ndarray | None = None,
                   *,
                   classes: Sequence[str],
                   palette: Sequence[Sequence[int]],
                   width: int = 480) -> np.ndarray:
    """A row for every level: its classes, its unity cells, what is taken from it; then the result.

    Args:
        image: the picture.
        levels: from coarse to fine.
        fused: class map of the whole.
        label: the truth.
        classes, palette: names and RGB colors.
        width: of a panel in pixels.

    Returns:
        uint8 BGR, three panels wide.
    """
    panels: Panels = {}
    for level in levels:
        painted, taken = paint_classes(level.classes, palette), level.taken
        panels[f'Stride {level.stride}: classes'] = painted
        cells = np.empty_like(image)
        cells[:] = MADE
        if level.unity is not None:
            cells[level.unity] = LOOKED
        cells[level.done] = DONE
        panels[f'Stride {level.stride}: unity ({1 - level.done.mean():.0%} active)'] = cells
        chosen = np.where(taken[..., None], painted, np.array(DONE, np.uint8))
        panels[f'Stride {level.stride}: taken ({taken.mean():.0%} of pixels)'] = chosen
    panels |= {'Image': image, 'Fused': paint_classes(fused, palette)}
    if label is not None:
        panels['Ground truth'] = paint_classes(label, palette)
    legend: Legend = list(zip(classes, [tuple(c)[::-1] for c in palette], strict=True))
    legend += [('unity', LOOKED), ('mixed', MADE), ('done by coarser', DONE)]
    return _sheet(panels, legend, columns=3, width=width)
