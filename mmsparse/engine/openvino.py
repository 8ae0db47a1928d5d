"""Networks of mmseg computed by OpenVINO, on the CPU.

Letters: ``B`` images, ``K`` classes, ``H, W`` size.
"""
from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor, nn

from mmsparse.preprocessing import batch_metas

# Sizes whose compiled networks are kept: each holds the weights once more.
SIZES = 4


class Network(nn.Module):
    """A segmentor as OpenVINO's converter wants to see it: images in, scores out."""

    def __init__(self, segmentor: EncoderDecoder) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.encode_decode = segmentor.encode_decode  # not the one that will stand in for it

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, K, H, W]``."""
        return self.encode_decode(inputs, batch_metas(inputs))


class OpenVINOEncodeDecode:
    """What stands in for a segmentor's ``encode_decode``; compiled at the first batch of a size.

    As many threads as torch has at that time.

    Args:
        segmentor: on the CPU, in evaluation mode.
        dtype: ``'float32'`` or ``'bfloat16'``, what OpenVINO computes in; a CPU without
            instructions for bfloat16 computes in float32.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
        ValueError: the segmentor is not on the CPU.
    """

    def __init__(self, segmentor: EncoderDecoder, dtype: str = 'float32') -> None:
        import openvino

        device = next(segmentor.parameters()).device
        if device.type != 'cpu':
            raise ValueError(f"backend 'openvino' computes on the CPU, the model is on {device}")
        self._openvino = openvino
        self._network = Network(segmentor)
        self._dtype = dtype
        self._compiled = functools.lru_cache(SIZES)(self._compile)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """``encode_decode`` of mmseg: float32 images ``[B, 3, H, W]`` to scores of that size."""
        compiled = self._compiled(tuple(inputs.shape), torch.get_num_threads())
        result, = compiled(inputs.contiguous().numpy(), share_inputs=True).values()
        return torch.from_numpy(result)

    def _compile(self, shape: tuple[int, ...], threads: int) -> Callable[..., Any]:
        """For batches of one shape."""
        with torch.autocast('cpu', enabled=False), warnings.catch_warnings():
            # The shape is meant to be a constant of the trace; tracing is the converter's choice.
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            warnings.simplefilter('ignore', DeprecationWarning)
            # Traced here, for the converter would compute the network twice more to check.
            example = torch.zeros(shape)
            traced = torch.jit.trace(self._network, example, check_trace=False)
            model = self._openvino.convert_model(traced, example_input=example)
        model.reshape(list(shape))
        return self._openvino.Core().compile_model(model, 'CPU', dict(
            INFERENCE_PRECISION_HINT=dict(float32='f32', bfloat16='bf16')[self._dtype],
            INFERENCE_NUM_THREADS=threads, PERFORMANCE_HINT='LATENCY'))


def computes_in(model: nn.Module) -> bool:
    """Whether OpenVINO computes a network of mmseg in a model."""
    return any(isinstance(inspect.unwrap(module.encode_decode), OpenVINOEncodeDecode)
               for module in model.modules() if isinstance(module, EncoderDecoder))
