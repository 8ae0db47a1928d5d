from .backbone import WNet as WNet
from .head import ScoresHead as ScoresHead
