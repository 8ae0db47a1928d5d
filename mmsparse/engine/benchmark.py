"""Time, multiply-accumulates and memory of models on the same images, measured in turns.

Letters: ``B`` images, ``H, W`` size, ``M`` selected pixels.
"""
from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.datasets.scenes import render_scene
from mmsparse.models.sparserefine.segmentor import SparseRefineSegmentor
from mmsparse.preprocessing import plain_samples
from mmsparse.sparse import Selection, SparseMap
from mmsparse.sparse.upsampled import classes_of

from .complexity import dense_macs
from .machine import peak_memory, synchronize
from .openvino import computes_in
from .stages import StageClock

PRECISIONS = ('fp32', 'fp16')
# What is timed: mmseg's predict; the network alone, as it comes out of its head; or from an image
# in main memory to its classes there, logits at full size, as real-time papers time it.
MODES = ('predict', 'forward', 'paper')


@dataclass
class Measurement:
    """One model at one batch size and precision.

    Attributes:
        name: of the model.
        batch_size: ``B``.
        precision: ``'fp32'`` or ``'fp16'``.
        mode: what was timed, one of ``MODES``.
        milliseconds: median time per image.
        p95: 95th percentile of the same.
        stages: median milliseconds per image by stage, each with the device synchronized, so that
            they add up to somewhat more than the total, and ``'other'``, the time between them;
            empty for a model without stages.
        density: share of refined pixels; ``None`` for a model without refinement.
        gmacs: multiply-accumulates per image in 10^9; of sparse layers by pairs of active pixels;
            ``None`` where OpenVINO computes, for it does not tell.
        peak_mib: highest memory during one pass above that before it, in MiB.
    """

    name: str
    batch_size: int
    precision: str
    mode: str
    milliseconds: float
    p95: float
    stages: dict[str, float] = field(default_factory=dict)
    density: float | None = None
    gmacs: float | None = None
    peak_mib: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def thin_bands(size: tuple[int, int], density: float, batch_size: int = 1, spacing: int = 40
               ) -> Tensor:
    """Winding bands, bool ``[B, H, W]`` with exactly ``round(density H W)`` pixels an image.

    Where a smooth random field is nearest to zero, as a segmentor is uncertain between classes.
    With the default spacing 11.8 % of 1024 x 2048 fill 17, 27, 47, 79 and 99 % of the coarser
    levels of a U-Net.

    Args:
        size: ``(H, W)``.
        density: share of the pixels, in ``(0, 1]``.
        batch_size: ``B``; every image has bands of its own.
        spacing: pixels between the field's random values; less gives more and thinner bands.
    """
    height, width = size
    noise = torch.randn(batch_size, 1, -(-height // spacing), -(-width // spacing),
                        generator=torch.Generator().manual_seed(0))
    field = torch.nn.functional.interpolate(noise, size=size, mode='bicubic').abs()
    nearest = field.flatten(1).argsort(dim=1, stable=True)[:, :round(density * height * width)]
    mask = torch.zeros(batch_size, height * width, dtype=torch.bool)
    return mask.scatter_(1, nearest, True).view(batch_size, height, width)


def scene_batch(batch_size: int, size: tuple[int, int]) -> Tensor:
    """Built-in scenes as uint8 ``[B, 3, H, W]``."""
    scenes = [render_scene(index, size)[0] for index in range(batch_size)]
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in scenes]))


@torch.no_grad()
def scene_classes(model: BaseSegmentor, size: tuple[int, int], count: int = 4) -> Tensor:
    """What a model takes the pixels of some built-in scenes for, int64 ``[count, H, W]``."""
    images = scene_batch(count, size)
    return torch.cat([model.test_step(dict(inputs=[image], data_samples=plain_samples(image[None])))
                      [0].pred_sem_seg.data.cpu() for image in images])


@contextlib.contextmanager
def forced_selection(model: SparseRefineSegmentor, mask: Tensor) -> Iterator[None]:
    """Let a model refine these pixels; its selector runs, but is not listened to.

    With random weights a selector's choice means nothing, with a mask of the paper's density the
    time does.

    Args:
        model: whose selector.
        mask: bool ``[B, H, W]`` of the images; what the model's preprocessor pads them with below
            and at the right is not refined.
    """
    selector, original = model.selector, model.selector.forward

    def choose(*args: Tensor) -> Selection:
        selection = original(*args)
        (H, W), (h, w) = selection.mask.shape[1:], mask.shape[1:]
        return selection._replace(mask=F.pad(mask, (0, W - w, 0, H - h)))

    selector.forward = choose
    try:
        yield
    finally:
        del selector.forward


@contextlib.contextmanager
def precision_context(models: Sequence[nn.Module], precision: str, device: torch.device
                      ) -> Iterator[None]:
    """Run dense layers under autocast and sparse extractors with half weights, or all in float32.

    Raises:
        ValueError: the precision is unknown, or fp16 is asked for on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be one of {PRECISIONS}, got {precision!r}')
    if precision == 'fp32':
        yield
        return
    if device.type != 'cuda':
        raise ValueError(f'precision fp16 needs a CUDA device, got {device}')
    extractors = [m.decode_head.extractor for m in models if isinstance(m, SparseRefineSegmentor)]
    for extractor in extractors:
        extractor.half()
    try:
        with torch.autocast('cuda', torch.float16):
            yield
    finally:
        for extractor in extractors:
            extractor.float()


@torch.no_grad()
def predict_time(model: BaseSegmentor, batch: dict, device: torch.device, mode: str = 'predict'
                 ) -> tuple[float, Any]:
    """Milliseconds of one pass on preprocessed images, and its result, by ``mode`` of ``MODES``."""
    samples = [SegDataSample(metainfo=dict(s.metainfo)) for s in batch['data_samples']]
    inputs = batch['inputs'].cpu() if mode == 'paper' else batch['inputs']
    synchronize(device)
    start = time.perf_counter()
    if mode == 'predict':
        result = model(inputs, samples, mode='predict')
    elif mode == 'forward':
        result = model(inputs, mode='tensor')
    else:
        logits = model.encode_decode(inputs.to(device), [s.metainfo for s in samples])
        result = classes_of(logits).to(torch.uint8).cpu()
    synchronize(device)
    return (time.perf_counter() - start) * 1000, result


def benchmark(models: dict[str, BaseSegmentor],
              *,
              size: tuple[int, int],
              batch_size: int = 1,
              precision: str = 'fp32',
              densities: dict[str, float] | None = None,
              mode: str = 'predict',
              iterations: int = 20,
              warmup: int = 3,
              progress: Callable[[], None] = lambda: None) -> list[Measurement]:
    """Measure models on the same built-in scenes, in turns.

    In turns, so that a busy or throttled machine slows all alike; every model comes first equally
    often. Stages are timed in passes of their own.

    Args:
        models: by name, in evaluation mode, on one device.
        size: ``(H, W)`` of the images.
        batch_size: ``B``.
        precision: ``'fp32'`` or ``'fp16'``.
        densities: by name, the share of pixels that a ``SparseRefineSegmentor`` is made to refine,
            in :func:`thin_bands`; without, its selector decides.
        mode: what is timed, one of ``MODES``; stages are known of ``'predict'`` alone.
        iterations: timed passes of every model.
        warmup: passes before them.
        progress: called after every pass.

    Raises:
        TypeError: a model is no segmentor.
        ValueError: precision or mode are unknown, or ``densities`` names another model.
    """
    if mode not in MODES:
        raise ValueError(f'mode must be one of {MODES}, got {mode!r}')
    for name, model in models.items():
        if not isinstance(model, BaseSegmentor):
            raise TypeError(f'{name} is a {type(model).__name__}, but only segmentors of mmseg are '
                            'measured')
    refiners = {name: model for name, model in models.items()
                if isinstance(model, SparseRefineSegmentor)}
    if others := sorted((densities or {}).keys() - refiners.keys()):
        raise ValueError(f'densities names {others}; models of SparseRefine are {list(refiners)}')
    names = list(models)
    device = next(models[names[0]].parameters()).device
    images = scene_batch(batch_size, size)
    batches = {name: models[name].data_preprocessor(
        dict(inputs=list(images), data_samples=plain_samples(images)), False) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    clocks = {name: StageClock(model) for name, model in refiners.items() if mode == 'predict'}
    between: dict[str, list[float]] = {name: [] for name in clocks}
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision_context(list(models.values()), precision, device))
        for name, density in (densities or {}).items():
            mask = thin_bands(size, density, batch_size).to(device)
            stack.enter_context(forced_selection(refiners[name], mask))
        for step in range(-warmup, iterations):
            turn = step % len(names)
            for name in names[turn:] + names[:turn]:
                elapsed, _ = predict_time(models[name], batches[name], device, mode)
                if step >= 0:
                    seconds[name].append(elapsed / batch_size)
                progress()
        for _ in range(max(iterations // 2, min(iterations, 3))):
            for name, clock in clocks.items():
                with clock:
                    elapsed, _ = predict_time(models[name], batches[name], device)
                between[name].append(elapsed - sum(x[-1] for x in clock.milliseconds.values()))
                progress()
        costs = {name: cost(models[name], batches[name], device, mode) for name in names}
    return [Measurement(
        name=name, batch_size=batch_size, precision=precision, mode=mode,
        milliseconds=statistics.median(seconds[name]),
        p95=float(np.percentile(seconds[name], 95)),
        stages={title: statistics.median(entries) / batch_size for title, entries in
                {**clocks[name].milliseconds, 'other': between[name]}.items()}
        if name in clocks else {},
        **costs[name]) for name in names]


@torch.no_grad()
def compare_engines(channels: Sequence[int], mask: Tensor, engines: Sequence[str], *,
                    device: torch.device, dtype: torch.dtype = torch.float32,
                    iterations: int = 5) -> dict[str, dict[str, float]]:
    """Time the same sparse U-Net, random weights, norms folded, by several engines in turns.

    Args:
        channels: width of each level.
        mask: bool ``[B, H, W]``.
        engines: of :class:`~mmsparse.models.sparserefine.SparseUNet`; the first is what the
            others are compared with.
        iterations: timed passes of each.

    Returns:
        By engine: ``ms`` of one pass (median), ``peak_mib``, and ``difference`` of the result from
        the first engine's, relative to its size.
    """
    torch.manual_seed(0)
    net = MODELS.build(dict(type='mmsparse.SparseUNet', channels=list(channels)))
    net = net.to(device, dtype).eval()
    net.fuse()
    image = torch.randn(len(mask), 3, *mask.shape[1:], device=device, dtype=dtype)
    pixels = SparseMap.from_mask(image, mask.to(device))
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    results, rows = {}, {}
    for step in range(-1, iterations):
        for engine in engines if step % 2 else reversed(engines):
            net.engine = engine
            synchronize(device)
            start = time.perf_counter()
            results[engine] = net(pixels)
            synchronize(device)
            if step >= 0:
                times[engine].append((time.perf_counter() - start) * 1000)
    first = results[engines[0]].float()
    for engine in engines:
        net.engine = engine
        rows[engine] = dict(
            ms=statistics.median(times[engine]),
            peak_mib=peak_memory(lambda: net(pixels), device) / 2**20,
            difference=float((results[engine].float() - first).norm() / first.norm()))
    return rows


def cost(model: BaseSegmentor, batch: dict, device: torch.device, mode: str
         ) -> dict[str, float | None]:
    """Density, GMACs per image and peak memory of one pass."""
    peak = peak_memory(lambda: predict_time(model, batch, device, mode), device)
    counted = not computes_in(model)
    density = macs = None
    if isinstance(model, SparseRefineSegmentor):
        samples = predict_time(model, batch, device)[1]
        mask = torch.cat([s.selected.data for s in samples])
        density = float(mask.float().mean())
        macs = refined_macs(model, batch, mask) if counted else None
    elif counted:
        metas = [s.metainfo for s in batch['data_samples']]
        macs = dense_macs(lambda: model.encode_decode(batch['inputs'], metas))
    gmacs = None if macs is None else macs / len(batch['inputs']) / 1e9
    return dict(density=density, gmacs=gmacs, peak_mib=peak / 2**20)


@torch.no_grad()
def refined_macs(model: SparseRefineSegmentor, batch: dict, mask: Tensor) -> int:
    """Multiply-accumulates of a model that refines ``mask``, bool ``[B, H, W]``.

    Low-resolution pass, sparse U-Net by its pairs of pixels, classifier and ensembler by their
    weights; a learned selector as it is.
    """
    inputs, head, low = batch['inputs'], model.decode_head, []
    total = dense_macs(lambda: low.append(model.low_resolution(inputs)))
    total += dense_macs(lambda: model.selector(inputs, low[0]))
    weights = sum(p.numel() for part in (head.classifier, head.ensembler)
                  for p in part.parameters() if p.ndim == 2)
    return total + head.extractor.macs(mask) + int(mask.sum()) * weights
