"""The sparse 2-D floor: maps, layers, selection. spconv is imported at the first convolution."""
from .complexity import coarser, strided_pairs, submanifold_pairs
from .layers import ActiveBatchNorm, DownConv2d, Linear1x1, SubMConv2d, UpConv2d
from .maps import SparseMap
from .masked_dense import MaskedMap
from .selection import (
    entropy,
    entropy_of_probabilities,
    fill_mask,
    limit_mask,
    logits_of,
    top_k_mask,
)

__all__ = [
    'ActiveBatchNorm',
    'DownConv2d',
    'Linear1x1',
    'MaskedMap',
    'SparseMap',
    'SubMConv2d',
    'UpConv2d',
    'coarser',
    'entropy',
    'entropy_of_probabilities',
    'fill_mask',
    'limit_mask',
    'logits_of',
    'strided_pairs',
    'submanifold_pairs',
    'top_k_mask',
]
