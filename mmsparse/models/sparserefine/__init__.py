"""SparseRefine (ECCV 2024): refine a low-resolution prediction where it is uncertain."""
from .ensemblers import EntropyEnsembler, GatedEnsembler
from .extractor import SparseUNet
from .head import SparseRefineHead
from .losses import PointDiceLoss
from .segmentor import SparseRefineSegmentor
from .selectors import EntropySelector, LearnableSelector, Selection, Selector
from .upsampled import IndexedLogits, UpsampledLogits

__all__ = [
    'EntropyEnsembler',
    'EntropySelector',
    'GatedEnsembler',
    'IndexedLogits',
    'LearnableSelector',
    'PointDiceLoss',
    'Selection',
    'Selector',
    'SparseRefineHead',
    'SparseRefineSegmentor',
    'SparseUNet',
    'UpsampledLogits',
]
