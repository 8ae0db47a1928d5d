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

from .sites import RowMap, Sites

Affine = tuple[Tensor, Tensor]  # scale and shift of a batch norm

INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
          [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

# Of a block of transformed tiles; more rows make the products efficient, fewer stay in cache.
BLOCK = 1 << 15
TRANSPOSED = 1 << 18  # weights per tap up to which they are transposed
# Per value, in multiply-accumulates of a large matrix product, measured on 2 cores: a transform
# runs at a third of its rate, and a transformed weight is written to memory.
TRANSFORM, WRITE = 3, 80


def affine_relu_(rows: Tensor, affine: Affine) -> None:
    """``relu(scale * rows + shift)`` in place: for rows that are still in cache."""
    scale, shift = affine
    torch.addcmul(shift, rows, scale, out=rows).relu_()


@functools.cache
def squares(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Kronecker squares of the three matrices: ``[36, 36]``, ``[36, 9]``, ``[16, 36]``."""
    matrices = (torch.tensor(m, dtype=torch.float64) for m in (INPUT, WEIGHT, OUTPUT))
    return tuple(torch.kron(m, m).to(dtype) for m in matrices)


def winograd_cost(tiles: int, c: int, d: int, move: int) -> int:
    """Estimate of :func:`winograd_conv`, in multiply-accumulates.

    Args:
        tiles: ``T``.
        c, d: channels in and out.
        move: what moving one float costs.
    """
    per_tile = 36 * c * d + TRANSFORM * (36 * 36 * c + 36 * 16 * d) + move * (36 * c + 16 * d)
    return tiles * per_tile + WRITE * 36 * c * d


def winograd_conv(x: RowMap, weight: Tensor, *, affine: Affine | None = None,
                  plus: Tensor | None = None) -> RowMap:
    """Submanifold 3x3 convolution; no gradients.

    Args:
        x: features ``[N, C]``.
        weight: ``[D, 3, 3, C]``.
        affine: scale and shift ``[D]``, applied before a ReLU; ``None`` for neither.
        plus: ``[N + 1, D]``, added to the convolution.
    """
    rows, sites, tiles = x.rows, x.sites, x.sites.tiles
    (d, _, _, c), t = weight.shape, len(tiles)
    to_input, _, to_output = squares(rows.dtype)
    weights = transformed_weight(weight, sites)
    out = rows.new_empty(len(rows), d)
    step = max(1, min(max(128, BLOCK // c), t))
    one, two = (sites.buffer(name, (36 * step * max(c, d),), rows) for name in ('one', 'two'))
    for start in range(0, t, step):
        part = tiles[start:start + step]
        k = len(part)
        gathered = one[:36 * k * c]
        torch.index_select(rows, 0, part.view(-1), out=gathered.view(36 * k, c))
        transformed = two[:36 * k * c].view(k, 36, c)
        torch.bmm(to_input.expand(k, 36, 36), gathered.view(k, 36, c), out=transformed)
        products = one[:36 * k * d].view(36, k, d)
        torch.bmm(transformed.transpose(0, 1), weights, out=products)
        block = two[:16 * k * d].view(16, k * d)
        torch.mm(to_output, products.view(36, k * d), out=block)
        block = block.view(16 * k, d)
        if affine is not None:
            affine_relu_(block, affine)
        out.index_copy_(0, sites.tile_rows[:, start:start + step].reshape(-1), block)
    if plus is not None:
        out += plus
    out[-1] = 0  # it took what no pixel wants
    return x.replace_rows(out)


def transformed_weight(weight: Tensor, sites: Sites) -> Tensor:
    """A weight ``[D, 3, 3, C]`` in the transform's domain, ``[36, C, D]``."""
    d, _, _, c = weight.shape
    # Products run faster on [C, D], but to transpose a weight beyond the cache costs more.
    transpose = c * d <= TRANSPOSED
    shape = (c, d) if transpose else (d, c)
    taps = sites.buffer('taps', (3, 3, *shape), weight)
    taps.copy_(weight.permute(1, 2, 3, 0) if transpose else weight.permute(1, 2, 0, 3))
    weights = sites.buffer('weights', (36, *shape), weight)
    torch.mm(squares(weight.dtype)[1], taps.view(9, c * d), out=weights.view(36, c * d))
    return weights if transpose else weights.transpose(1, 2)
