"""The published methods, a light base, and test-time augmentation; importing registers all."""
from .crm import *  # noqa: F401,F403
from .effseg import *  # noqa: F401,F403
from .sparserefine import *  # noqa: F401,F403
from .specialize_fuse import *  # noqa: F401,F403
from .swiftnet import *  # noqa: F401,F403
from .tta import SegTTAModel  # noqa: F401
from .wnet import *  # noqa: F401,F403
