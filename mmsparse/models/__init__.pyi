from .crm import *
from .effseg import *
from .sparserefine import *
from .specialize_fuse import *
from .swiftnet import *
from .tta import SegTTAModel as SegTTAModel
from .wnet import *
