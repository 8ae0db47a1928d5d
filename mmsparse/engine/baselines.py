"""SparseRefine's five baselines: dense high-resolution inference against refinement.

Dense inference in every way in which a user of the machine would compute it: refinement is worth
its place where it is faster than the fastest of them.

Source: SparseRefine (ECCV 2024), supplement Tables 1 and 3.
"""
from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmseg.models.segmentors import BaseSegmentor

from mmsparse.precision import computes_bfloat16
from mmsparse.sizes import scaled

from .benchmark import Measurement, benchmark, thin_bands
from .fusion import BACKENDS, DTYPES, fuse_for_inference
from .loading import load_model


@dataclass(frozen=True)
class Baseline:
    """One baseline of the paper.

    Attributes:
        name: of the model, as the configs are named.
        schedule: in the name of the dense config.
        density: share of the pixels refined.
        paper: speed-up over dense inference in the paper, by precision and batch size, RTX 3090.
    """

    name: str
    schedule: str
    density: float
    paper: dict[str, dict[int, float]]

    @property
    def configs(self) -> dict[str, str]:
        """File names of the configs: dense, refined as in the paper, and by a lighter U-Net."""
        return {'dense': f'{self.name}_{self.schedule}_cityscapes-1024x2048.py',
                'refined': f'sparserefine_{self.name}_8xb4-46k_cityscapes-1024x2048.py',
                'refined-s': f'sparserefine-s_{self.name}_8xb4-46k_cityscapes-1024x2048.py'}


BASELINES = dict(
    hrnet=Baseline('fcn-hr48', '4xb2-80k', 0.118, {
        'fp16': {1: 1.07, 4: 1.65}, 'fp32': {1: 1.37, 4: 1.50}}),
    segformer=Baseline('segformer-mit-b5', '8xb1-160k', 0.139, {
        'fp16': {1: 2.29, 4: 3.65}, 'fp32': {1: 3.40, 4: 3.78}}),
    mask2former_t=Baseline('mask2former-swin-t', '8xb2-90k', 0.241, {
        'fp16': {1: 1.09, 4: 1.49}, 'fp32': {1: 1.40, 4: 1.48}}),
    mask2former_l=Baseline('mask2former-swin-l', '8xb2-90k', 0.350, {
        'fp16': {1: 1.49, 4: 1.82}, 'fp32': {1: 1.79, 4: 1.97}}),
    segnext=Baseline('segnext-mscan-l', '8xb1-160k', 0.100, {
        'fp16': {1: 1.50, 4: 1.70}, 'fp32': {1: 1.45, 4: 1.59}}))


class Variant(NamedTuple):
    """A model, and what computes it.

    Attributes:
        model: ``'dense'``, ``'refined'`` or ``'refined-s'``.
        backend, dtype: of :func:`~mmsparse.engine.fusion.fuse_for_inference`.
    """

    model: str
    backend: str = 'torch'
    dtype: str = 'float32'

    @property
    def name(self) -> str:
        """Of the measurement."""
        return ' '.join(self)


def variants(device: torch.device) -> list[Variant]:
    """What is worth measuring on a device.

    On the CPU the dense model in all ways; the refining ones as torch computes them by default, and
    in the fastest way.
    """
    if device.type != 'cpu':
        return [Variant('dense'), Variant('refined')]
    dtypes = DTYPES if computes_bfloat16() else DTYPES[:1]
    return [*(Variant('dense', backend, dtype) for backend in BACKENDS for dtype in dtypes),
            Variant('refined'), Variant('refined', BACKENDS[-1], dtypes[-1]),
            Variant('refined-s', BACKENDS[-1], dtypes[-1])]


def load_models(baseline: Baseline, configs: Path, device: torch.device,
                chosen: Sequence[Variant], height: int = 1024) -> dict[str, BaseSegmentor]:
    """Models with random weights by the names of their variants, fused for inference.

    Args:
        configs: folder of the SparseRefine configs.
        chosen: what to load.
        height: of the images that will be measured. A low-resolution size given in pixels belongs
            to the paper's 1024 and is scaled.
    """
    models: dict[str, BaseSegmentor] = {}
    for variant in chosen:
        model = load_model(configs / baseline.configs[variant.model], None, device)
        if variant.model != 'dense' and model.low_res_size is not None:
            model.low_res_size = scaled(model.low_res_size, height / 1024)
        models[variant.name] = fuse_for_inference(
            model, backend=variant.backend, dtype=variant.dtype)
    return models


@dataclass(frozen=True)
class Comparison:
    """Dense inference against refinement.

    Attributes:
        measurements: by the name of the variant.
        unet_gmacs: multiply-accumulates of the sparse U-Net per image in 10^9, by pairs of pixels;
            by ``'refined'`` and ``'refined-s'``.
    """

    measurements: dict[str, Measurement]
    unet_gmacs: dict[str, float]

    def fastest(self, model: str) -> Measurement:
        """Of ``'dense'``, ``'refined'`` or ``'refined-s'``."""
        return min((m for name, m in self.measurements.items() if name.split()[0] == model),
                   key=lambda m: m.milliseconds)

    def speedup(self, model: str) -> float:
        """Time of the fastest dense inference over that of the fastest refinement."""
        return self.fastest('dense').milliseconds / self.fastest(model).milliseconds

    def overhead(self, model: str) -> float:
        """Share of the fastest refinement's time outside low-resolution pass and U-Net."""
        stages = self.fastest(model).stages
        return 1 - (stages['low-resolution pass'] + stages['U-Net']) / sum(stages.values())

    def floor(self, model: str, rate: float) -> float:
        """Least time of refinement in ms: its low-resolution pass, the U-Net at full rate.

        Args:
            rate: multiply-accumulates per second of a dense convolution in 10^9.
        """
        low = self.fastest(model).stages['low-resolution pass']
        return low + self.unet_gmacs[model] / rate * 1000


def compare(models: dict[str, BaseSegmentor], density: float, size: tuple[int, int],
            **options: Any) -> Comparison:
    """Measure the models of :func:`load_models` in turns.

    Args:
        density: share of the pixels refined.
        size: ``(H, W)``.
        **options: of :func:`~mmsparse.engine.benchmark.benchmark`.
    """
    refiners = {name: model for name, model in models.items() if not name.startswith('dense')}
    found = benchmark(models, size=size, densities=dict.fromkeys(refiners, density), **options)
    mask = thin_bands(size, density, batch_size=found[0].batch_size)
    macs = {name.split()[0]: model.decode_head.extractor.macs(mask) / len(mask) / 1e9
            for name, model in refiners.items()}
    return Comparison({m.name: m for m in found}, macs)


def compare_variants(baseline: Baseline, configs: Path, device: torch.device,
                     chosen: Sequence[Variant], size: tuple[int, int], **options: Any
                     ) -> Comparison:
    """Load and measure variants, in turns those that are computed as the last one, and the others.

    Not all at once: every network that OpenVINO has compiled keeps its gigabytes of room.

    Args:
        configs: folder of the SparseRefine configs.
        chosen: what to measure.
        size: ``(H, W)``.
        **options: of :func:`~mmsparse.engine.benchmark.benchmark`.
    """
    alike = [variant for variant in chosen if variant[1:] == chosen[-1][1:]]
    both = Comparison({}, {})
    for group in (alike, [variant for variant in chosen if variant not in alike]):
        models = load_models(baseline, configs, device, group, size[0])
        part = compare(models, baseline.density, size, **options)
        both = Comparison(both.measurements | part.measurements, both.unet_gmacs | part.unet_gmacs)
        del models
        gc.collect()
    return both
