"""SparseRefine (ECCV 2024): refine a low-resolution prediction where it is uncertain."""
from .ensemblers import EntropyEnsembler, GatedEnsembler
from .extractor import SparseUNet
from .head import SparseRefineHead
from .segmentor import SparseRefineSegmentor
from .selectors import EntropySelector, LearnableSelector
from .upsampled import UpsampledLogits

__all__ = [
    'EntropyEnsembler',
    'EntropySelector',
    'GatedEnsembler',
    'LearnableSelector',
    'SparseRefineHead',
    'SparseRefineSegmentor',
    'SparseUNet',
    'UpsampledLogits',
]
