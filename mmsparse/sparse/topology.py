"""Which pixels are active, on every level, and which of them a convolution joins.

No features and no memory to compute in: what every backend starts from. Letters: ``B`` images,
``H, W`` size, ``N`` active pixels, ``M`` active cells of the next coarser level, ``T`` tiles of
4 x 4 pixels.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsparse.sizes import size_of

TILE = 4
SPARE = 64  # rows for what no pixel wants
AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


@dataclass(frozen=True)
class Tiles:
    """Tiles of 4 x 4 pixels, and the active pixels outside of them.

    Attributes:
        reads: int32 ``[T, 36]``, the 6x6 pixels that a 3x3 convolution reads for every tile.
        writes: int64 ``[16, T]``, the pixels of every tile; ``N`` up to ``N + SPARE - 1`` for those
            that are not active, in turns: threads that write to one row wait for each other.
        loose: int64 ``[n]``, row numbers of the active pixels in no tile.
        loose_neighbors: int32 ``[n, 9]``, the 3x3 pixels around each of them.
    """

    reads: Tensor
    writes: Tensor
    loose: Tensor
    loose_neighbors: Tensor


@dataclass(frozen=True)
class Readers:
    """Pixels of like parity, and the coarse cells that read them.

    Attributes:
        pixels: int64 ``[n]``, row numbers.
        cells: int32 ``[n, k]``, row numbers of the ``k`` cells that read each pixel.
        taps: through which of the nine taps, in raster order, they do.
    """

    pixels: Tensor
    cells: Tensor
    taps: list[int]


def any_of_three(mask: Tensor, dim: int, padding: int) -> Tensor:
    """A maximum of a bool mask over windows of three along ``dim``, every second one.

    Nine times as fast as a pooling of floats.
    """
    length = (mask.shape[dim] + 2 * padding - 3) // 2 + 1
    mask = F.pad(mask, [0, 0] * (mask.ndim - 1 - dim) + [padding, padding]).movedim(dim, 0)
    first, second, third = (mask[i:i + 2 * length - 1:2] for i in range(3))
    return (first | second | third).movedim(0, dim)


class Topology:
    """The active pixels of one level, and tables over them, each built when first asked for.

    A table holds row numbers, int32; ``N`` stands for a pixel that is not active.

    Args:
        mask: bool ``[B, H, W]``. Rows are its active pixels in raster order: image, row, column.

    Raises:
        ValueError: dtype or shape of the mask are others.
    """

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim != 3 or 0 in mask.shape:
            raise ValueError(f'mask must be bool [B, H, W], got {mask.dtype} {list(mask.shape)}')
        self.mask = mask
        self._coarse: dict[int, Topology] = {}
        self._tiles: dict[int, Tiles] = {}
        self._read_by: dict[int, Tensor] = {}
        self._readers: dict[int, list[Readers]] = {}

    def __len__(self) -> int:
        return len(self.coordinates[0])

    @property
    def batch_size(self) -> int:
        """``B``; an image may have no active pixel at all."""
        return len(self.mask)

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        return size_of(self.mask)

    @cached_property
    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, row and column of every active pixel, int64 ``[N]`` each."""
        image, y, x = self.mask.nonzero().unbind(1)
        return image, y, x

    @cached_property
    def indices(self) -> Tensor:
        """The coordinates as spconv takes them, int32 ``[N, 3]``, contiguous."""
        return torch.stack(self.coordinates, 1).int()

    def crop(self, top: int, left: int, bottom: int, right: int) -> tuple[Topology, Tensor]:
        """The part inside a window, in the window's own coordinates.

        Args:
            top, left, bottom, right: the window in pixels, ``bottom`` and ``right`` excluded.

        Returns:
            The part, and the int64 numbers ``[n]`` of its rows in this one.
        """
        image, y, x = self.coordinates
        rows = ((y >= top) & (y < bottom) & (x >= left) & (x < right)).nonzero().squeeze(1)
        part = Topology(self.mask[:, top:bottom, left:right])
        # The same that the mask says, without counting it again: an exporter would see two counts.
        part.coordinates = image[rows], y[rows] - top, x[rows] - left
        return part, rows

    # ---- the level below ----------------------------------------------------------------------

    def coarse(self, padding: int) -> Topology:
        """The cells of a 3x3 convolution of stride 2 that read any active pixel.

        Args:
            padding: 0 or 1, of the convolution. An empty grid has none; without padding, so may
                another: pixels in the last row or column of an even size are read by no cell.
        """
        if padding not in self._coarse:
            self._coarse[padding] = Topology(
                any_of_three(any_of_three(self.mask, 1, padding), 2, padding))
        return self._coarse[padding]

    # ---- pairs of pixels that a convolution joins ---------------------------------------------

    @cached_property
    def pairs(self) -> int:
        """Pairs of a 3x3 convolution from the active pixels onto the same ones."""
        mask = self.mask[:, None].float()
        around = F.conv2d(mask, mask.new_ones(1, 1, 3, 3), padding=1)
        return int((around * mask).double().sum())

    def strided_pairs(self, padding: int) -> int:
        """Pairs of a 3x3 convolution of stride 2 to :meth:`coarse`, and of its inverse."""
        mask = self.mask[:, None].float()
        read = F.conv2d(mask, mask.new_ones(1, 1, 3, 3), stride=2, padding=padding)
        return int(read.double().sum())

    @cached_property
    def grid(self) -> Tensor:
        """Row number of every pixel, flat, with a border of one and room for whole tiles."""
        n, (height, width), device = len(self), self.grid_size, self.mask.device
        grid = torch.full((self.batch_size * height * width,), n, dtype=torch.int32, device=device)
        numbers = torch.arange(n, dtype=torch.int32, device=device)
        return grid.index_copy_(0, self.places(*self.coordinates), numbers)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of :attr:`grid`."""
        height, width = (-(-n // TILE) * TILE + 2 for n in self.spatial_shape)
        return height, width

    def places(self, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Where pixels stand in :attr:`grid`."""
        height, width = self.grid_size
        return (image * height + y + 1) * width + x + 1

    def look_up(self, places: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
        """Row numbers of the pixels at ``places + offset``, ``[len(places), len(offsets)]``."""
        if len(self.grid) < 2**31:  # twice as fast
            places = places.int()
        steps = places.new_tensor([dy * self.grid_size[1] + dx for dy, dx in offsets])
        return self.grid.index_select(0, (places[:, None] + steps).view(-1)).view(-1, len(offsets))

    @cached_property
    def neighbors(self) -> Tensor:
        """The 3x3 neighbors of every active pixel, ``[N, 9]``, taps in raster order."""
        return self.look_up(self.places(*self.coordinates), AROUND)

    def read_by(self, padding: int) -> Tensor:
        """The 3x3 pixels that each coarse cell reads, ``[M, 9]``, taps in raster order."""
        if padding not in self._read_by:
            image, y, x = self.coarse(padding).coordinates
            self._read_by[padding] = self.look_up(
                self.places(image, 2 * y - padding, 2 * x - padding),
                [(dy, dx) for dy in range(3) for dx in range(3)])
        return self._read_by[padding]

    def readers(self, padding: int) -> list[Readers]:
        """The coarse cells that read each pixel, for the four parities of pixels.

        A pixel of row ``y`` is read through tap ``r`` by the cell ``(y + padding - r) / 2`` where
        that is whole: taps 0 and 2 of even ``y + padding``, tap 1 of odd; columns likewise.
        """
        if padding in self._readers:
            return self._readers[padding]
        cells, (image, y, x) = self.coarse(padding), self.coordinates
        y, x = y + padding, x + padding
        places, parity = cells.places(image, y >> 1, x >> 1), 2 * (y & 1) + (x & 1)
        groups = self._readers[padding] = []
        for number, taps in enumerate(
                [(r, c) for r in rows for c in columns]
                for rows in ((0, 2), (1,)) for columns in ((0, 2), (1,))):
            pixels = (parity == number).nonzero().squeeze(1)
            # (y + padding - r) // 2 relative to (y + padding) // 2: 0, 0, -1 for r = 0, 1, 2
            table = cells.look_up(places[pixels], [(-(r // 2), -(c // 2)) for r, c in taps])
            groups.append(Readers(pixels, table, [3 * r + c for r, c in taps]))
        return groups

    # ---- tiles of 4 x 4 pixels ----------------------------------------------------------------

    @cached_property
    def tile_counts(self) -> Tensor:
        """Active pixels of every tile, int64 ``[B, ceil(H / 4), ceil(W / 4)]``."""
        b, h, w = self.mask.shape
        padded = F.pad(self.mask, (0, -w % TILE, 0, -h % TILE))
        return padded.view(b, -(-h // TILE), TILE, -(-w // TILE), TILE).sum((2, 4))

    @cached_property
    def tile_histogram(self) -> list[int]:
        """Tiles by their number of active pixels, 0 to 16."""
        return self.tile_counts.flatten().bincount(minlength=TILE**2 + 1).tolist()

    def tiles(self, least: int) -> Tiles:
        """The tiles with at least so many active pixels."""
        if least not in self._tiles:
            full = self.tile_counts >= least
            image, y, x = full.nonzero().unbind(1)
            around = range(-1, TILE + 1)
            reads = self.look_up(self.places(image, y * TILE, x * TILE),
                                 [(dy, dx) for dy in around for dx in around])
            writes = reads.view(-1, 6, 6)[:, 1:5, 1:5].flatten(1).T.contiguous().long()
            turns = torch.arange(writes.numel(), device=writes.device).view_as(writes) % SPARE
            writes += turns * (writes == len(self))
            image, y, x = self.coordinates
            loose = (~full[image, y // TILE, x // TILE]).nonzero().squeeze(1)
            self._tiles[least] = Tiles(reads, writes, loose, self.look_up(
                self.places(image, y, x)[loose], AROUND))
        return self._tiles[least]
