"""CRM (CVPR 2022): continuous refinement of any mask at any resolution."""
from .backbone import CRMMobileNetV2, CRMResNet
from .head import ImplicitPointHead
from .losses import SobelLoss
from .neck import CRMFusionNeck
from .refiner import CRMRefiner, Refinement
from .wrappers import RefinedDetector, RefinedSegmentor

__all__ = [
    'CRMFusionNeck',
    'CRMMobileNetV2',
    'CRMRefiner',
    'CRMResNet',
    'ImplicitPointHead',
    'RefinedDetector',
    'RefinedSegmentor',
    'Refinement',
    'SobelLoss',
]
