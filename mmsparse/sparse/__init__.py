"""The sparse 2-D floor: maps, layers, selection. spconv is imported at the first convolution."""
from .backends import ActiveMap, MaskedMap, RowMap, SpconvMap, TrainedRowMap
from .layers import ActiveBatchNorm, DownConv2d, Linear1x1, SubMConv2d, UpConv2d
from .maps import SparseMap
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
from .topology import Topology
from .upsampled import UpsampledLogits

__all__ = [
    'ActiveBatchNorm',
    'ActiveMap',
    'BoundarySelector',
    'DownConv2d',
    'EntropySelector',
    'Linear1x1',
    'MaskedMap',
    'RowMap',
    'SPSConv2d',
    'SPSDeformConv2d',
    'SPSMap',
    'Selection',
    'Selector',
    'SparseMap',
    'SpconvMap',
    'SubMConv2d',
    'Topology',
    'TrainedRowMap',
    'UpConv2d',
    'UpsampledLogits',
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
    'sum_of_convolutions',
    'to_dense',
    'top_k_mask',
]
