"""The published methods, a light base and test-time augmentation, each imported when used."""
from mmsparse.lazy import attach

from . import crm, effseg, sparserefine, specialize_fuse, swiftnet, wnet

__getattr__, __dir__, __all__ = attach(__name__, {
    'tta': ('SegTTAModel',),
} | {
    room.__name__.rpartition('.')[2]: room.__all__
    for room in (crm, effseg, sparserefine, specialize_fuse, swiftnet, wnet)
})
