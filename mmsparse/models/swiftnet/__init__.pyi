from .encoders import (
    SwiftNetPyramidBackbone as SwiftNetPyramidBackbone, SwiftNetResNet as SwiftNetResNet)
from .ensemble import SegEnsemble as SegEnsemble
from .head import SwiftNetHead as SwiftNetHead
from .losses import BoundaryAwareLoss as BoundaryAwareLoss
from .necks import PyramidFusionNeck as PyramidFusionNeck, SwiftNetNeck as SwiftNetNeck
