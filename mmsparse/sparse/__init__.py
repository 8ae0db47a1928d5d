"""The sparse 2-D floor: maps, layers, selection. spconv is imported at the first convolution."""
from mmsparse.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    'backends': ('ActiveMap', 'MaskedMap', 'RowMap', 'SpconvMap', 'TrainedRowMap'),
    'layers': ('ActiveBatchNorm', 'DownConv2d', 'Linear1x1', 'SubMConv2d', 'UpConv2d'),
    'maps': ('SparseMap',),
    'selection': (
        'dilate', 'entropy', 'entropy_of_probabilities', 'fill_mask', 'label_boundary',
        'limit_mask', 'logits_of', 'top_k_mask'),
    'selectors': ('BoundarySelector', 'EntropySelector', 'Selection', 'Selector'),
    'sps': ('SPSMap', 'from_dense', 'keep_best', 'neighbors', 'select', 'split', 'to_dense'),
    'sps_layers': ('SPSConv2d', 'SPSDeformConv2d', 'sum_of_convolutions'),
    'topology': ('Topology',),
    'upsampled': ('UpsampledLogits',),
})
