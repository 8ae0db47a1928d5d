"""The published methods and a light base, one folder each; importing registers all components."""
from .crm import *  # noqa: F401,F403
from .effseg import *  # noqa: F401,F403
from .sparserefine import *  # noqa: F401,F403
from .specialize_fuse import *  # noqa: F401,F403
from .swiftnet import *  # noqa: F401,F403
from .wnet import *  # noqa: F401,F403
