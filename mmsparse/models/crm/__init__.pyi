from .backbone import CRMMobileNetV2 as CRMMobileNetV2, CRMResNet as CRMResNet
from .detector import RefinedDetector as RefinedDetector
from .head import ImplicitPointHead as ImplicitPointHead
from .losses import SobelLoss as SobelLoss
from .neck import CRMFusionNeck as CRMFusionNeck
from .refiner import CRMRefiner as CRMRefiner, Refinement as Refinement
from .segmentor import RefinedSegmentor as RefinedSegmentor
