"""Where and in which memory the sparse U-Net computes; one class a file, all the same function.

========================  =========================================================================
:class:`SpconvMap`        rows, spconv's convolutions: CUDA, and the reference on the CPU
:class:`RowMap`           rows, gathers and matrix products: inference on the CPU
:class:`TrainedRowMap`    the same with gradients: training on the CPU
:class:`TracedRowMap`     the same in operators of ONNX: exported graphs
:class:`MaskedMap`        a dense map times a mask: any device without spconv, and the tests' oracle
:class:`MacCount`         no features at all: counts multiply-accumulates
========================  =========================================================================
"""
from .active_map import ActiveMap, scale_and_shift
from .counting import MacCount
from .dense import MaskedMap
from .rows import RowMap
from .spconv import SpconvMap
from .traced import TracedRowMap
from .trained_rows import TrainedRowMap

__all__ = ['ActiveMap', 'MacCount', 'MaskedMap', 'RowMap', 'SpconvMap', 'TracedRowMap',
           'TrainedRowMap', 'scale_and_shift']
