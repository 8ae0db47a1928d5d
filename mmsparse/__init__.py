"""mmsparse: spend a segmentation model's compute only where the picture is hard.

Importing the package is light and changes nothing outside it, but that mmengine learns the config
prefix ``mmsparse::`` (see :mod:`mmsparse.compat`). Components register on demand, under the scope
``mmsparse`` (see :mod:`mmsparse.registry`).
"""

from mmsparse import compat
from mmsparse.version import __version__

__all__ = ['__version__']

compat.add_config_prefixes()
