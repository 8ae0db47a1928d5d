"""The published methods and a light base, one folder each, imported when a name of it is used."""
from mmsparse.lazy import attach

from . import crm, effseg, sparserefine, specialize_fuse, swiftnet, wnet

__getattr__, __dir__, __all__ = attach(__name__, {
    room.__name__.rpartition('.')[2]: room.__all__
    for room in (crm, effseg, sparserefine, specialize_fuse, swiftnet, wnet)})
