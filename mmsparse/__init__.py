"""mmsparse: spend a segmentation model's compute only where the picture is hard.

Importing the package is light: it mends what the installed MM stack needs mended (see
:mod:`mmsparse.compat`) and loads no model. Components register on demand, under the scope
``mmsparse`` (see :mod:`mmsparse.registry`).
"""

from mmsparse import compat
from mmsparse.version import __version__

__all__ = ['__version__']

compat.mend()
