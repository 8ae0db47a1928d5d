"""Features that live on the active pixels of a batch of images.

Letters: ``B`` images, ``C`` channels, ``H, W`` full size, ``N`` active pixels of the whole batch.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .topology import Topology


@dataclass(frozen=True)
class SparseMap:
    """Rows of features and the pixels they belong to.

    Attributes:
        features: ``[N, C]``, floating point, in raster order of the pixels.
        topology: the active pixels.

    Raises:
        ValueError: dtype or shape of the features are others.
    """

    features: Tensor
    topology: Topology

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.is_floating_point():
            raise ValueError('SparseMap.features must be a floating-point [N, C], got '
                             f'{self.features.dtype} {list(self.features.shape)}')
        # By shape: where a graph is exported it is a symbol, which `len` cannot give.
        if self.features.shape[0] != self.topology.coordinates[0].shape[0]:
            raise ValueError(f'SparseMap has {len(self.features)} rows of features, but its '
                             f'topology has {len(self.topology)} active pixels')

    @classmethod
    def from_mask(cls, image: Tensor, mask: Tensor) -> SparseMap:
        """Take the pixels of ``image`` where ``mask`` is true.

        Args:
            image: ``[B, C, H, W]``, floating point.
            mask: ``[B, H, W]`` bool, on the same device.

        Returns:
            The map of the ``mask.sum()`` active pixels in raster order (image, row, column), so
            that ``dense.permute(0, 2, 3, 1)[mask] = features`` writes them back.
        """
        if image.ndim != 4:
            raise ValueError(f'image must be [B, C, H, W], got {list(image.shape)}')
        expected = [image.shape[0], *image.shape[2:]]
        topology = Topology(mask)
        if list(mask.shape) != expected:
            raise ValueError(f'mask must be bool {expected} for an image of '
                             f'{list(image.shape)}, got {list(mask.shape)}')
        b, y, x = topology.coordinates
        return cls(image[b, :, y, x], topology)

    def __len__(self) -> int:
        return len(self.features)

    def replace_features(self, features: Tensor) -> SparseMap:
        """The same pixels with other ``features``, ``[N, C']``."""
        return replace(self, features=features)

    def crop(self, top: int, left: int, bottom: int, right: int) -> tuple[SparseMap, Tensor]:
        """The part inside a window, and the numbers of its rows: as :meth:`.Topology.crop`."""
        topology, rows = self.topology.crop(top, left, bottom, right)
        return SparseMap(self.features[rows], topology), rows

    def read(self, dense: Tensor) -> Tensor:
        """Values of ``dense`` (``[B, H, W]`` or ``[B, C, H, W]``) at the rows: ``[N(, C)]``."""
        b, y, x = self.topology.coordinates
        return dense[b, :, y, x] if dense.ndim == 4 else dense[b, y, x]

    def write(self, dense: Tensor, values: Tensor) -> Tensor:
        """Put ``values`` (``[N]`` or ``[N, C]``) into ``dense`` in place, and return it."""
        b, y, x = self.topology.coordinates
        target = dense.permute(0, 2, 3, 1) if dense.ndim == 4 else dense
        target[b, y, x] = values.to(dense.dtype)
        return dense
