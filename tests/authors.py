"""What the authors' own code returned, and the rule that makes its weights and inputs again.

``tests/data/authors/README.md`` says what ran, where each array comes from and what is known of it.
Every number is drawn under its name (``noise``, ``smooth``, ``picture``, ``state``), so no weights
are stored; ``golden`` reads the outputs.
"""
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent / 'data' / 'authors'


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float64, seeded by the CRC-32 of their name."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    return generator.standard_normal(tuple(shape))


def value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The entry ``key`` of a state dict, float64: scaled by what kind of entry it is."""
    last, drawn = key.rsplit('.', 1)[-1], noise(key, shape)
    if last == 'num_batches_tracked':
        return np.zeros(shape, np.int64)
    if last == 'running_var':
        return 1 + 0.1 * np.abs(drawn)
    if len(shape) >= 2:  # filters: by their fan-in; kernels of sparse layers end in (in, out)
        return drawn / np.sqrt(np.prod(shape[:-1] if last == 'kernel' else shape[1:]))
    return 1 + 0.1 * drawn if last == 'weight' else 0.1 * drawn


def smooth(name: str, height: int, width: int, cell: int, channels: int = 1) -> np.ndarray:
    """Noise on a coarse grid, bilinear between its points: float64 ``[channels, H, W]``."""
    z = noise(name, (channels, -(-height // cell) + 1, -(-width // cell) + 1))
    i, j = np.arange(height) // cell, np.arange(width) // cell
    a, b = (np.arange(height) % cell / cell)[:, None], (np.arange(width) % cell / cell)[None]
    z00, z01, z10, z11 = (z[:, i + p][:, :, j + q] for p in (0, 1) for q in (0, 1))
    return (1 - a) * ((1 - b) * z00 + b * z01) + a * ((1 - b) * z10 + b * z11)


def picture(name: str, height: int, width: int) -> np.ndarray:
    """A smooth color picture with grain: uint8 ``[3, H, W]``, RGB."""
    v = 128 + 70 * smooth(name, height, width, 16, 3) + 15 * noise(f'{name}.grain',
                                                                   (3, height, width))
    return np.clip(np.rint(v), 0, 255).astype(np.uint8)


def entries(model: str) -> list[tuple[str, list[int], str]]:
    """``(key, shape, dtype)`` of the authors' state dict, in the order of their file."""
    return json.loads((FOLDER / 'keys' / f'{model}.json').read_text())


def state(model: str, prefix: str = '') -> dict[str, Tensor]:
    """The authors' state dict: ``prefix`` is part of the names that are drawn, not of the keys."""
    return {key: torch.from_numpy(value(prefix + key, shape).astype(dtype))
            for key, shape, dtype in entries(model)}


def golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file."""
    with np.load(FOLDER / 'golden' / f'{name}.npz') as arrays:
        return dict(arrays)


def bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A stored bit mask as a boolean array."""
    return np.unpackbits(packed)[:int(np.prod(shape))].reshape(shape).astype(bool)


def widened(module: nn.Module) -> nn.Module:
    """The module for a float64 run: float32 weights as float64, in evaluation mode."""
    return module.double().eval()
