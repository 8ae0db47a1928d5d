"""The published methods, one folder each; importing this registers their components."""
from .crm import *  # noqa: F401,F403
from .effseg import *  # noqa: F401,F403
from .sparserefine import *  # noqa: F401,F403
from .specialize_fuse import *  # noqa: F401,F403
from .swiftnet import *  # noqa: F401,F403
