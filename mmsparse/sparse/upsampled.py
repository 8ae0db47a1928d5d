"""Low-resolution class scores, read at full resolution without building the full-size map.

Letters: ``B`` images, ``K`` classes, ``H, W`` full size, ``h, w`` low-resolution size, ``N`` rows.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsparse.sizes import size_of

from .bilinear import cells_around_pixels
from .selection import entropy, logits_of

MODES = ('nearest', 'bilinear')


def classes_of(logits: Tensor, threshold: float | None = None) -> Tensor:
    """Class of every pixel.

    Args:
        logits: ``[B, K, ...]`` or ``[N, K]``.
        threshold: for two classes that stand for one sigmoid, the probability above which the
            second is taken, as in mmseg's one-channel heads; ``None`` is arg-max.

    Returns:
        int64, ``logits`` without the dimension of the classes.
    """
    if threshold is None:
        return logits.max(1).indices  # as arg-max, which takes several times as long on a CPU
    return ((logits[:, 1] - logits[:, 0]).sigmoid() > threshold).long()


# Rows of the full-size map in flight at a time: 64 x 2048 x 19 float32 are 10 MB.
CHUNK = 64
# Values of a low-resolution map that a CPU works on at a time, so that they stay in its cache.
CACHED = 1 << 18


class UpsampledLogits:
    """The low-resolution logits as a function on full-resolution pixels.

    With ``mode='nearest'`` (as in the paper's released code) entropy and class are constant on
    blocks: they are computed once at low resolution and only their result is expanded. With
    ``'bilinear'`` (how mmseg itself scores a low-resolution model) they are computed in bands of
    ``CHUNK`` rows. Either way no ``K x H x W`` map exists unless :meth:`full` is called.

    Args:
        scores: ``[B, K, h, w]`` from the low-resolution segmentor.
        size: ``(H, W)``.
        mode: ``'nearest'`` or ``'bilinear'``.
        probabilities: the scores are probabilities that need not sum to one (Mask2Former): after
            interpolation they are clipped at 1e-10 and their logarithm serves as logit.
        threshold: of :func:`classes_of`.
        align_corners: of the bilinear resizing, as the segmentor resizes.
    """

    def __init__(self,
                 scores: Tensor,
                 size: tuple[int, int],
                 *,
                 mode: str,
                 probabilities: bool = False,
                 align_corners: bool = False,
                 threshold: float | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f'upsample must be one of {MODES}, got {mode!r}')
        self.mode = mode
        self.size = size[0], size[1]
        self.probabilities = probabilities
        self.align_corners = align_corners
        self.threshold = threshold
        if mode == 'nearest':  # commutes with any function of a pixel: apply it once, down here
            scores = self._to_logits(scores)
        self.scores = scores
        self._y, self._x = (self._taps(n, full) for n, full in
                            zip(scores.shape[2:], self.size, strict=True))

    def _taps(self, n: int, full: int) -> tuple[Tensor, Tensor, Tensor]:
        """Low-resolution neighbors of each full-resolution coordinate along one axis.

        Returns:
            int64 ``[full]`` first and second neighbor, and the float32 weight of the second.
        """
        device = self.scores.device
        if self.mode == 'nearest':
            # Each pixel takes the one that its center falls into; plain 'nearest' would move the
            # map by up to half a pixel where the sizes do not divide. torch's own rounding.
            grid = torch.arange(n, device=device, dtype=torch.float32)
            first = F.interpolate(grid[None, None], size=full, mode='nearest-exact')[0, 0].long()
            return first, first, torch.zeros(full, device=device)
        cells, offset = cells_around_pixels(  # in torch's own precision
            range(full), full, n, align_corners=self.align_corners, device=device,
            dtype=torch.float32)
        return cells[:, 0], cells[:, 1], offset[:, 0]

    def _to_logits(self, scores: Tensor) -> Tensor:
        return logits_of(scores) if self.probabilities else scores

    def _bands(self) -> Iterator[tuple[int, Tensor]]:
        """Bilinear logits in bands of rows: ``(top, [B, K, rows, W])``."""
        height, width = self.size
        first, second, weight = self._y
        weight = weight.to(self.scores.dtype)[:, None]
        for top in range(0, height, CHUNK):
            rows = slice(top, top + CHUNK)
            band = torch.lerp(
                self.scores[:, :, first[rows]], self.scores[:, :, second[rows]], weight[rows])
            band = F.interpolate(
                band, size=(band.shape[2], width), mode='bilinear',
                align_corners=self.align_corners)
            yield top, self._to_logits(band)

    def per_pixel(self, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        """A function of every pixel's logits, at full resolution.

        Args:
            function: ``[B, K, ...]`` logits to ``[B, ...]`` of ``dtype``; each pixel by itself.

        Returns:
            ``[B, H, W]``.
        """
        if self.mode == 'nearest':
            b, k, h, w = self.scores.shape
            rows = h if self.scores.is_cuda else max(1, CACHED // (b * k * w))
            return self.expand(torch.cat([function(x) for x in self.scores.split(rows, 2)], 1))
        out = self.scores.new_empty((len(self.scores), *self.size), dtype=dtype)
        for top, band in self._bands():
            out[:, top:top + band.shape[2]] = function(band)
        return out

    def expand(self, low: Tensor) -> Tensor:
        """Copy a low-resolution map ``[B, h, w]`` onto ``[B, H, W]``, nearest neighbor."""
        return low[:, self._y[0]][:, :, self._x[0]]

    def channel(self, number: int) -> Tensor:
        """Logits of one class at full size, ``[B, H, W]``."""
        one = UpsampledLogits(self.scores[:, number:number + 1], self.size, mode=self.mode,
                              align_corners=self.align_corners)
        return self._to_logits(one.full())[:, 0] if self.mode == 'bilinear' else one.full()[:, 0]

    def entropy(self) -> Tensor:
        """Entropy at every pixel, float32 ``[B, H, W]``, in nats."""
        return self.per_pixel(entropy, torch.float32)

    def classes(self) -> Tensor:
        """Class of every pixel, int64 ``[B, H, W]``."""
        return self.per_pixel(lambda z: classes_of(z, self.threshold), torch.int64)

    def at(self, indices: Tensor) -> Tensor:
        """Logits of single pixels.

        Args:
            indices: int ``[N, 3]``, ``(image, y, x)`` at full resolution.

        Returns:
            ``[N, K]``.
        """
        b, y, x = indices.long().unbind(1)
        top, bottom, dy = (t[y] for t in self._y)
        left, right, dx = (t[x] for t in self._x)
        if self.mode == 'nearest':
            return self.scores[b, :, top, left]
        dx, dy = dx.to(self.scores.dtype)[:, None], dy.to(self.scores.dtype)[:, None]
        channels_last = self.scores.permute(0, 2, 3, 1)
        upper = torch.lerp(channels_last[b, top, left], channels_last[b, top, right], dx)
        lower = torch.lerp(channels_last[b, bottom, left], channels_last[b, bottom, right], dx)
        return self._to_logits(torch.lerp(upper, lower, dy))

    def full(self) -> Tensor:
        """The full-size logits, ``[B, K, H, W]``: only for callers that need every one."""
        if self.mode == 'nearest':
            full = F.interpolate(self.scores, size=self.size, mode='nearest-exact')
        else:
            full = self._to_logits(F.interpolate(
                self.scores, size=self.size, mode='bilinear',
                align_corners=self.align_corners))
        # At equal sizes interpolation returns its input, and callers write into the result.
        return full.clone() if size_of(self.scores) == self.size else full
