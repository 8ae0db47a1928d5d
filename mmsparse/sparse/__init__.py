"""The sparse 2-D floor: maps, layers, selection. spconv is imported at the first convolution."""
from .complexity import coarser, strided_pairs, submanifold_pairs
from .layers import ActiveBatchNorm, DownConv2d, Linear1x1, SubMConv2d, UpConv2d
from .maps import SparseMap
from .masked_dense import MaskedMap
from .selection import (
    dilate,
    entropy,
    entropy_of_probabilities,
    fill_mask,
    label_boundary,
    limit_mask,
    logits_of,
    top_k_mask,
)
from .selectors import BoundarySelector, EntropySelector, Selection, Selector
from .sps import SPSMap, from_dense, keep_best, neighbors, select, split, to_dense
from .sps_layers import SPSConv2d, SPSDeformConv2d, sum_of_convolutions
from .upsampled import UpsampledLogits

__all__ = [
    'ActiveBatchNorm',
    'BoundarySelector',
    'DownConv2d',
    'EntropySelector',
    'Linear1x1',
    'MaskedMap',
    'SPSConv2d',
    'SPSDeformConv2d',
    'SPSMap',
    'Selection',
    'Selector',
    'SparseMap',
    'SubMConv2d',
    'UpConv2d',
    'UpsampledLogits',
    'coarser',
    'dilate',
    'entropy',
    'entropy_of_probabilities',
    'fill_mask',
    'from_dense',
    'keep_best',
    'label_boundary',
    'limit_mask',
    'logits_of',
    'neighbors',
    'select',
    'split',
    'strided_pairs',
    'submanifold_pairs',
    'sum_of_convolutions',
    'to_dense',
    'top_k_mask',
]
