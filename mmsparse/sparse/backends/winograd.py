r"""3x3 convolutions on tiles of 4 x 4 pixels by Winograd's minimal filtering, F(4x4, 3x3).

.. math:: Y = A^T \left[ (G g G^T) \odot (B^T d B) \right] A

takes 36 multiplications for the 16 results of a tile where the plain convolution takes 144. The
transforms are matrix products with Kronecker squares of the matrices, done in blocks that stay in
cache; the 36 products per channel pair are one batched matrix product.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (matrices:
sec. 4.3). In float32 the result differs from the plain sum by about 3e-6 of its size. Letters:
``N`` pixels, ``T`` tiles, ``C, D`` channels in and out.
"""
from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..topology import Tiles
from .arena import Arena

INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
          [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

# Of a block of transformed tiles; more rows make the products efficient, fewer stay in cache.
BLOCK = 1 << 15
PART = 1 << 22  # values of a transformed weight, where it is transformed in parts
TRANSPOSED = 1 << 18  # weights per tap up to which they are transposed
# Per value, in multiply-accumulates of a large matrix product, measured on 2 cores: a transform
# runs at a third of its rate, and a transformed weight is written to memory.
TRANSFORM, WRITE = 3, 80


@functools.cache
def squares(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Kronecker squares of the three matrices: ``[36, 36]``, ``[36, 9]``, ``[16, 36]``."""
    matrices = (torch.tensor(m, dtype=torch.float64) for m in (INPUT, WEIGHT, OUTPUT))
    to_input, to_weights, to_output = (torch.kron(m, m).to(dtype) for m in matrices)
    return to_input, to_weights, to_output


def tile_cost(c: int, d: int, move: int) -> int:
    """Estimate of one tile of :func:`winograd_product`, in multiply-accumulates.

    Args:
        c, d: channels in and out.
        move: what moving one float costs.
    """
    return 36 * c * d + TRANSFORM * (36 * 36 * c + 36 * 16 * d) + move * (36 * c + 16 * d)


def winograd_product(rows: Tensor, tiles: Tiles, weight: Tensor, arena: Arena, *, out: Tensor,
                     bias: Tensor | None = None) -> None:
    """3x3 convolution onto the pixels of some tiles; no gradients.

    Args:
        rows: ``[N + 1, C]``, the last row zero.
        tiles: the tiles.
        weight: ``[D, 3, 3, C]``.
        arena: gives the memory for blocks.
        out: ``[N + SPARE, D]``, written to at the tiles' pixels; from row ``N`` on it is garbage.
        bias: ``[D]``, added before a ReLU; ``None`` for neither.
    """
    (d, _, _, c), t = weight.shape, len(tiles.reads)
    to_input, _, to_output = squares(rows.dtype)
    step = max(1, min(max(128, BLOCK // c), t))
    # Few tiles meet large weights at the deepest levels: these then are transformed in parts.
    parts = weight.split(max(64, PART // (36 * c)) if t <= step else d)
    width = len(parts[0])
    whole = transformed_weight(weight, arena) if len(parts) == 1 else None
    gathered_room, input_room, product_room, result_room = (
        arena.take((size * step,), rows.dtype)
        for size in (36 * c, 36 * c, 36 * width, 16 * width))
    for start in range(0, t, step):
        reads, writes = tiles.reads[start:start + step], tiles.writes[:, start:start + step]
        k = len(reads)
        gathered = gathered_room[:36 * k * c].view(k * 36, c)
        torch.index_select(rows, 0, reads.view(-1), out=gathered)
        inputs = input_room[:36 * k * c].view(k, 36, c)
        torch.bmm(to_input.expand(k, 36, 36), gathered.view(k, 36, c), out=inputs)
        for number, part in enumerate(parts):
            transformed = transformed_weight(part, arena) if whole is None else whole
            n, columns = len(part), slice(number * width, number * width + len(part))
            products = product_room[:36 * k * n].view(36, k, n)
            torch.bmm(inputs.transpose(0, 1), transformed, out=products)
            del transformed  # its memory serves the next part
            results = result_room[:16 * k * n].view(16, k * n)
            torch.mm(to_output, products.view(36, k * n), out=results)
            results = results.view(16 * k, n)
            if bias is not None:
                results.add_(bias[columns]).relu_()
            out[:, columns].index_copy_(0, writes.reshape(-1), results)


def transformed_weight(weight: Tensor, arena: Arena) -> Tensor:
    """A weight ``[D, 3, 3, C]`` in the transform's domain, ``[36, C, D]``."""
    d, _, _, c = weight.shape
    # Products run faster on [C, D], but to transpose a weight beyond the cache costs more.
    transpose = c * d <= TRANSPOSED
    shape = (c, d) if transpose else (d, c)
    taps = arena.take((3, 3, *shape), weight.dtype)
    taps.copy_(weight.permute(1, 2, 3, 0) if transpose else weight.permute(1, 2, 0, 3))
    weights = arena.take((36, *shape), weight.dtype)
    torch.mm(squares(weight.dtype)[1], taps.view(9, c * d), out=weights.view(36, c * d))
    return weights if transpose else weights.transpose(1, 2)
