"""SparseRefine's five baselines: dense high-resolution inference against refinement.

Source: SparseRefine (ECCV 2024), supplement Tables 1 and 3.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmseg.models.segmentors import BaseSegmentor

from mmsparse.sizes import scaled

from .benchmark import Measurement, benchmark, thin_bands
from .fusion import fuse_for_inference
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
        """File names of the dense and the refining config."""
        return dict(dense=f'{self.name}_{self.schedule}_cityscapes-1024x2048.py',
                    refined=f'sparserefine_{self.name}_8xb4-46k_cityscapes-1024x2048.py')


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


def load_pair(baseline: Baseline, configs: Path, device: torch.device, height: int = 1024
              ) -> dict[str, BaseSegmentor]:
    """The dense and the refining model with random weights, both fused for inference.

    Args:
        configs: folder of the SparseRefine configs.
        height: of the images that will be measured. A low-resolution size given in pixels belongs
            to the paper's 1024 and is scaled.
    """
    models: dict[str, BaseSegmentor] = {
        name: fuse_for_inference(load_model(configs / file, None, device))
        for name, file in baseline.configs.items()}
    refined = models['refined']
    if refined.low_res_size is not None:
        refined.low_res_size = scaled(refined.low_res_size, height / 1024)
    return models


@dataclass(frozen=True)
class PairMeasurement:
    """Dense inference against refinement.

    Attributes:
        dense, refined: what was measured, in turns.
        unet_gmacs: multiply-accumulates of the sparse U-Net per image in 10^9, by pairs of pixels.
    """

    dense: Measurement
    refined: Measurement
    unet_gmacs: float

    @property
    def speedup(self) -> float:
        """Time of dense inference over that of refinement."""
        return self.dense.milliseconds / self.refined.milliseconds

    @property
    def overhead(self) -> float:
        """Share of the time outside the low-resolution pass and the U-Net."""
        stages = self.refined.stages
        return 1 - (stages['low-resolution pass'] + stages['U-Net']) / sum(stages.values())

    def floor(self, rate: float) -> float:
        """Least time of refinement in ms: its low-resolution pass, the U-Net at full rate.

        Args:
            rate: multiply-accumulates per second of a dense convolution in 10^9.
        """
        return self.refined.stages['low-resolution pass'] + self.unet_gmacs / rate * 1000


def compare_pair(models: dict[str, BaseSegmentor], density: float, size: tuple[int, int],
                 **options: Any) -> PairMeasurement:
    """Measure a pair of :func:`load_pair`.

    Args:
        density: share of the pixels refined.
        size: ``(H, W)``.
        **options: of :func:`~mmsparse.engine.benchmark.benchmark`.
    """
    dense, refined = benchmark(models, size=size, densities=dict(refined=density), **options)
    mask = thin_bands(size, density, batch_size=refined.batch_size)
    macs = models['refined'].decode_head.extractor.macs(mask) / refined.batch_size
    return PairMeasurement(dense, refined, macs / 1e9)
