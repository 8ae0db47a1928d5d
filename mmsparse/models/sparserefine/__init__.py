"""SparseRefine (ECCV 2024): refine a low-resolution prediction where it is uncertain."""
from .ensemblers import EntropyEnsembler, GatedEnsembler
from .extractor import SparseUNet
from .head import SparseRefineHead
from .indexed import IndexedLogits
from .losses import PointDiceLoss
from .segmentor import SparseRefineSegmentor
from .selectors import LearnableSelector

__all__ = [
    'EntropyEnsembler',
    'GatedEnsembler',
    'IndexedLogits',
    'LearnableSelector',
    'PointDiceLoss',
    'SparseRefineHead',
    'SparseRefineSegmentor',
    'SparseUNet',
]
