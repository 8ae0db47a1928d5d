from .backends import (
    ActiveMap as ActiveMap, MaskedMap as MaskedMap, RowMap as RowMap, SpconvMap as SpconvMap,
    TracedRowMap as TracedRowMap, TrainedRowMap as TrainedRowMap)
from .layers import (
    ActiveBatchNorm as ActiveBatchNorm, BiasReLU as BiasReLU, DownConv2d as DownConv2d,
    Linear1x1 as Linear1x1, SubMConv2d as SubMConv2d, UpConv2d as UpConv2d)
from .maps import SparseMap as SparseMap
from .selection import (
    dilate as dilate, entropy as entropy, entropy_of_probabilities as entropy_of_probabilities,
    fill_mask as fill_mask, label_boundary as label_boundary, limit_mask as limit_mask,
    logits_of as logits_of, top_k_mask as top_k_mask)
from .selectors import (
    BoundarySelector as BoundarySelector, EntropySelector as EntropySelector,
    Selection as Selection, Selector as Selector)
from .sps import (
    SPSMap as SPSMap, from_dense as from_dense, keep_best as keep_best, neighbors as neighbors,
    select as select, split as split, to_dense as to_dense)
from .sps_layers import (
    SPSConv2d as SPSConv2d, SPSDeformConv2d as SPSDeformConv2d,
    sum_of_convolutions as sum_of_convolutions)
from .topology import Topology as Topology
from .upsampled import UpsampledLogits as UpsampledLogits
