"""SwiftNet (CVPR 2019): an ImageNet encoder and a thin ladder decoder, one scale or a pyramid."""
from .encoders import SwiftNetPyramidBackbone, SwiftNetResNet
from .ensemble import SegEnsemble
from .head import SwiftNetHead
from .losses import BoundaryAwareLoss
from .necks import PyramidFusionNeck, SwiftNetNeck

__all__ = [
    'BoundaryAwareLoss',
    'PyramidFusionNeck',
    'SegEnsemble',
    'SwiftNetHead',
    'SwiftNetNeck',
    'SwiftNetPyramidBackbone',
    'SwiftNetResNet',
]
