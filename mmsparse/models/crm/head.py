"""An implicit function on a feature map, asked at any resolution.

Source: CRM (CVPR 2022), sec. 3; its ancestor: Chen et al., "Learning Continuous Image
Representation with Local Implicit Image Function", CVPR 2021. Letters: ``B`` images, ``C``
channels, ``D`` width of the first hidden layer, ``H, W`` size of the feature map, ``Q`` queries,
``T, U`` height and width of the grid that is asked for.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS

from .sampling import Window


def centers(size: int, device: torch.device) -> Tensor:
    """Centers of ``size`` pixels on ``-1 .. 1``, float32 ``[size]``."""
    return (2 * torch.arange(size, device=device, dtype=torch.float32) + 1) / size - 1


class Neighbors(NamedTuple):
    """The two feature cells around each pixel of a target axis.

    Attributes:
        cells: int64 ``[T, 2]``, coordinates of the cells, those beyond the map moved to its edge.
        offset: float32 ``[T, 2]``, from cell to pixel where a cell is 2 long: within ``-2 .. 2``
            inside the map.
    """

    cells: Tensor
    offset: Tensor


def neighbors(target: int, size: int, device: torch.device) -> Neighbors:
    """Neighbors of every pixel of an axis.

    Args:
        target: pixels of the axis.
        size: cells of the axis.
    """
    position = (torch.arange(target, device=device, dtype=torch.float64) + 0.5) * (
        size / target) - 0.5
    cells = position.floor().long()[:, None] + torch.tensor([0, 1], device=device)
    cells = cells.clamp_(0, size - 1)
    return Neighbors(cells, (2 * (position[:, None] - cells)).float())


class Axis(NamedTuple):
    """Rows or columns of a target grid as :class:`ImplicitPointHead` sees them.

    Attributes:
        cells, offset: of :class:`Neighbors`.
        hidden: their part of the first layer, float32 ``[T, 2, D]``.
    """

    cells: Tensor
    offset: Tensor
    hidden: Tensor


@MODELS.register_module()
class ImplicitPointHead(BaseModule):
    r"""A perceptron that answers for a point from the four feature cells around it.

    For each cell ``k`` it reads the cell's feature, the offset :math:`C_{r,k}` from cell to point,
    the point's position :math:`C_t` and the size ``r`` of a target pixel, all as ``(y, x)``. The
    four answers are averaged, weighed by the area between the point and the opposite cell; away
    from the edges these are the weights of bilinear interpolation.

    Its first layer is linear, so the features' part is computed once per cell (:meth:`project`),
    and a query gathers ``D`` values instead of ``C``: 12,800 multiply-accumulates instead of 45,952
    with the defaults, and the same result. 11,617 parameters.

    The layers start as torch's ``nn.Linear`` does, as in the released training: the first answers
    are near 0, so that no probability is saturated.

    Coordinates, offsets and areas are float32 whatever the features are: half precision cannot
    tell the pixels of a large image apart.

    Args:
        in_channels: ``C``.
        hidden: widths of the hidden layers.
        out_channels: values per point.
    """

    def __init__(self, *, in_channels: int = 256, hidden: Sequence[int] = (32, 32, 32, 32),
                 out_channels: int = 1, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        widths = [in_channels + 6, *hidden, out_channels]
        self.in_channels = in_channels
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def project(self, features: Tensor) -> Tensor:
        """The features' part of the first layer.

        Args:
            features: ``[B, C, H, W]``.

        Returns:
            ``[B, H, W, D]``.
        """
        weight = self.layers[0].weight[:, :self.in_channels]
        # as a convolution it takes the features as they lie in memory
        projected = nn.functional.conv2d(features, weight[:, :, None, None].to(features.dtype))
        return projected.permute(0, 2, 3, 1)

    def axes(self, target: tuple[int, int], size: tuple[int, int]) -> tuple[Axis, Axis]:
        """What the rows and the columns of a target grid have to say, for :meth:`forward`.

        Args:
            target: ``(T, U)``, size of the grid.
            size: ``(H, W)`` of the whole feature map.
        """
        device = self.layers[0].weight.device
        axes = []
        with torch.autocast(device.type, enabled=False):
            weight = self.layers[0].weight[:, self.in_channels:].float().T  # [6, D]
            for i, (pixels, cells) in enumerate(zip(target, size, strict=True)):
                around = neighbors(pixels, cells, device)
                # offset, position and pixel size of this axis; the bias goes with the rows
                hidden = (around.offset[..., None] * weight[i]
                          + centers(pixels, device)[:, None, None] * weight[2 + i]
                          + 2 * cells / pixels * weight[4 + i])
                if i == 0:
                    hidden = hidden + self.layers[0].bias.float()
                axes.append(Axis(*around, hidden))
        return tuple(axes)

    def forward(self, projected: Tensor, queries: Tensor, axes: tuple[Axis, Axis],
                held: Window | None = None) -> Tensor:
        """Answers at pixels of a target grid.

        Args:
            projected: ``[B, H, W, D]``, of :meth:`project`.
            queries: int64 ``[Q, 3]``: image, row, column.
            axes: of :meth:`axes`, of the grid whose rows and columns these are.
            held: what of the feature map ``projected`` is, if not all; it must hold the cells
                around every query.

        Returns:
            ``[Q, out_channels]``, logits.
        """
        image, row, column = queries.unbind(1)
        y, x = axes
        top, left = (held.top, held.left) if held else (0, 0)
        # four cells, row first: 00, 01, 10, 11. By index_select: the gradient of indexing is slow
        _, height, width, d = projected.shape
        cell_row = image[:, None] * height + (y.cells[row] - top)
        cells = cell_row[:, :, None] * width + (x.cells[column] - left)[:, None]
        hidden = projected.reshape(-1, d).index_select(0, cells.flatten()).view(-1, 2, 2, d)
        hidden = hidden + y.hidden.index_select(0, row).to(hidden.dtype)[:, :, None]
        hidden = hidden + x.hidden.index_select(0, column).to(hidden.dtype)[:, None]
        hidden = hidden.relu_().flatten(0, 2)
        *layers, last = self.layers[1:]
        for layer in layers:  # on [4 Q, D]: in place on a view would cost autograd copies
            hidden = layer(hidden).relu_()
        values = last(hidden).view(len(queries), 4, -1)
        area = (y.offset[row][:, :, None] * x.offset[column][:, None]).abs().flatten(1) + 1e-9
        weight = area.flip(1) / area.sum(1, keepdim=True)
        return (weight[..., None] * values).sum(1)
