"""The forms in which predictions are written, by the names that ``--out-format`` knows.

A new one is a subclass of :class:`.base.OutputFormat` in a module of this folder, and a line in
``FORMATS``. The command line's help imports them all: what is heavy (torch, mmseg, mmdet,
matplotlib) or optional is imported inside their methods.
"""
from .base import OutputFormat
from .coco import Coco
from .cvat import Cvat
from .fiftyone import FiftyOne
from .geojson import GeoJson
from .label_studio import LabelStudio
from .pictures import Labels, Overlay, Panels

__all__ = ['FORMATS', 'OutputFormat']

FORMATS: dict[str, type[OutputFormat]] = {
    'labels': Labels,
    'overlay': Overlay,
    'panels': Panels,
    'coco': Coco,
    'cvat': Cvat,
    'label-studio': LabelStudio,
    'fiftyone': FiftyOne,
    'geojson': GeoJson,
}
