"""A function of position on a feature map, which answers at any resolution.

Source: CRM (CVPR 2022), sec. 3; its ancestor: Chen et al., "Learning Continuous Image
Representation with Local Implicit Image Function", CVPR 2021. Letters: ``B`` images, ``C``
channels, ``D`` width of the first hidden layer, ``H, W`` size of the feature map in cells, ``T, U``
height and width of the target grid in pixels, ``Q`` queries, which are pixels of the target grid.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsparse.registry import MODELS
from mmsparse.sparse.bilinear import cells_around_pixels

from .sampling import Window


def pixel_centers(pixels: int, device: torch.device) -> Tensor:
    """Centers of the pixels of an axis that reaches from -1 to 1, float32 ``[pixels]``.

    Example: 4 pixels lie at -0.75, -0.25, 0.25 and 0.75.
    """
    return (2 * torch.arange(pixels, device=device, dtype=torch.float32) + 1) / pixels - 1


class Axis(NamedTuple):
    """The rows, or the columns, of a target grid, prepared for :class:`ImplicitPointHead`.

    Attributes:
        cells: int64 ``[T, 2]``, the feature cells around each pixel.
        offset: float32 ``[T, 2]``, from cell to pixel. A cell counts as 2, as in the released code,
            which takes the difference on a map from -1 to 1 times the number of cells.
        hidden: float32 ``[T, 2, D]``, what position, offset and pixel size of this axis add to the
            first layer.
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
    tell the pixels of a large image apart. Between 2048 and 4096 it only has every other integer.

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
        """Compute what the features add to the first layer, once per cell.

        Args:
            features: ``[B, C, H, W]``.

        Returns:
            ``[B, H, W, D]``.
        """
        weight, _ = self.layers[0].parameters()
        # as a convolution it takes the features as they lie in memory
        projected = nn.functional.conv2d(
            features, weight[:, :self.in_channels, None, None].to(features.dtype))
        return projected.permute(0, 2, 3, 1)

    def axes(self, target: tuple[int, int], size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Prepare the rows and the columns of a target grid for :meth:`forward`.

        Position, offset and pixel size of a point are those of its row and those of its column.
        What they add to the first layer is therefore the sum of two parts, which are computed here
        for ``T`` rows and ``U`` columns instead of for all ``T U`` points.

        Args:
            target: ``(T, U)``, size of the target grid.
            size: ``(H, W)`` of the whole feature map.

        Returns:
            Rows and columns.
        """
        weight, bias = self.layers[0].parameters()
        device, axes = weight.device, []
        with torch.autocast(device.type, enabled=False):
            of_place = weight[:, self.in_channels:].float().T  # [6, D]
            for i, (pixels, cells) in enumerate(zip(target, size, strict=True)):
                around = cells_around_pixels(range(pixels), pixels, cells, device=device)
                offset = (2 * around.offset).float()
                # rows of the weight: offset y, x; position y, x; pixel size y, x
                hidden = (offset[..., None] * of_place[i]
                          + pixel_centers(pixels, device)[:, None, None] * of_place[2 + i]
                          + 2 * cells / pixels * of_place[4 + i])  # [T, 2, D]
                if i == 0:  # the bias is added once, with the rows
                    hidden = hidden + bias.float()
                axes.append(Axis(around.cells, offset, hidden))
        rows, columns = axes
        return rows, columns

    def forward(self, projected: Tensor, queries: Tensor, axes: tuple[Axis, Axis],
                window: Window | None = None) -> Tensor:
        """Answer at pixels of a target grid.

        Args:
            projected: ``[B, H, W, D]``, of :meth:`project`.
            queries: int64 ``[Q, 3]``: image, row, column.
            axes: of :meth:`axes`, for the target grid and the whole feature map.
            window: which part of the feature map ``projected`` is; all by default. It contains the
                cells around every query.

        Returns:
            ``[Q, out_channels]``, logits.
        """
        image, row, column = queries.unbind(1)
        y, x = axes
        top, left = (window.top, window.left) if window else (0, 0)
        # four cells, row first: 00, 01, 10, 11. By index_select: the gradient of indexing is slow
        _, height, width, d = projected.shape
        cell_row = image[:, None] * height + (y.cells[row] - top)  # [Q, 2]
        cells = cell_row[:, :, None] * width + (x.cells[column] - left)[:, None]  # [Q, 2, 2]
        hidden = projected.reshape(-1, d).index_select(0, cells.flatten()).view(-1, 2, 2, d)
        hidden = hidden + y.hidden.index_select(0, row).to(hidden.dtype)[:, :, None]
        hidden = hidden + x.hidden.index_select(0, column).to(hidden.dtype)[:, None]
        hidden = hidden.relu_().flatten(0, 2)  # [4 Q, D]
        *layers, last = self.layers[1:]
        for layer in layers:  # on [4 Q, D]: in place on a view would cost autograd copies
            hidden = layer(hidden).relu_()
        values = last(hidden).view(len(queries), 4, -1)  # [Q, 4, out_channels]
        area = (y.offset[row][:, :, None] * x.offset[column][:, None]).abs().flatten(1) + 1e-9
        # flipped: a cell's weight is the area between the point and the opposite cell
        weight = area.flip(1) / area.sum(1, keepdim=True)  # [Q, 4]
        return (weight[..., None] * values).sum(1)
