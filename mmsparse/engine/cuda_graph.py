"""Replaying dense networks from CUDA graphs."""
from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor

from mmsparse.models.sparserefine.segmentor import SparseRefineSegmentor

WARMUP = 3  # passes that choose algorithms and allocate, which a capture must not


class GraphReplay:
    """A function of one CUDA tensor, captured once per shape, dtype and autocast, then replayed.

    A graph saves the time that the host takes to launch kernels one by one, which is most of the
    time of a small network at batch 1. A function that cannot be captured, because it waits for
    the device, runs as it is, with a warning.

    Args:
        function: tensor to tensor; all that it does must be CUDA kernels of fixed shapes.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        """The function's result, in memory of its own."""
        key = inputs.shape, inputs.dtype, torch.is_autocast_enabled('cuda')
        if key not in self.graphs:
            self.graphs[key] = self.capture(inputs)
        captured = self.graphs[key]
        if captured is None:
            return self.function(inputs)
        graph, static_inputs, static_result = captured
        static_inputs.copy_(inputs)
        graph.replay()
        return static_result.clone()

    def capture(self, inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None:
        """Graph, its input and its result; ``None`` if the function cannot be captured."""
        static_inputs = inputs.clone()
        cached = torch.is_autocast_cache_enabled()
        # Casts kept from outside the capture would be freed when autocast ends.
        torch.set_autocast_cache_enabled(False)
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARMUP):
                    self.function(static_inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                static_result = self.function(static_inputs)
        except RuntimeError as error:
            warnings.warn(f'the network cannot be captured as a CUDA graph and runs without: '
                          f'{str(error).splitlines()[0]}', stacklevel=4)
            return None
        finally:
            torch.set_autocast_cache_enabled(cached)
        return graph, static_inputs, static_result


@contextlib.contextmanager
def graphed_inference(model: BaseSegmentor) -> Iterator[None]:
    """Let a model on CUDA replay its network from graphs; a SparseRefine its low-resolution pass.

    Args:
        model: in evaluation mode; the graphs hold for images of the sizes it has seen, and are
            dropped at the end.

    Raises:
        ValueError: the model is in training mode or not on CUDA.
    """
    device = next(model.parameters()).device
    if model.training or device.type != 'cuda':
        raise ValueError('graphed_inference needs a model in evaluation mode on CUDA, got '
                         f'training={model.training} on {device}')
    dense = model.segmentor if isinstance(model, SparseRefineSegmentor) else model
    inference, replays = dense.inference, {}

    def replay(inputs: Tensor, metas: list[dict]) -> Tensor:
        size = tuple(inputs.shape)  # the metas speak of the same size
        if size not in replays:
            replays[size] = GraphReplay(lambda x: inference(x, metas))
        return replays[size](inputs)

    dense.inference = replay
    try:
        yield
    finally:
        del dense.inference
