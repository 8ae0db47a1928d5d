"""Continuous refinement of one mask of each image, from coarse to fine, within a bound of memory.

Source: Shen et al., "High Quality Segmentation for Ultra High-resolution Images" (CRM), CVPR 2022,
sec. 3, and its released model. Letters: ``B`` masks, ``T, U`` height and width of the padded
full-resolution maps, ``H, W`` size of the encoder's input.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.memory import trim_heap
from mmsparse.precision import takes_bfloat16
from mmsparse.preprocessing import prepare
from mmsparse.registry import MODELS
from mmsparse.sizes import scaled, size_of
from mmsparse.sparse import UpsampledLogits, dilate, label_boundary

from .losses import SobelLoss
from .sampling import Window, resize_aligned, whole
from .tiling import QUERY_BYTES, SELECTOR_BYTES, Tile, plan_tiles

LOSSES = dict(bce=1.0, l1=0.5, l2=0.5, sobel=2.0)
DEFAULTS = dict(
    scales=(0.125, 0.25, 0.5, 1.0), pad=32, min_long_side=224, min_area=1024, query_chunk=None,
    max_bytes=None, selector=None, select_from=0.5, amp=False, accept_iou=None, edit_band=None)
QUERY_SHARE = 0.25  # of max_bytes, for the points that are answered at a time, at most


class Refinement(NamedTuple):
    """Refined masks, and how much was computed and changed.

    Attributes:
        mask: probabilities, float32 ``[B, H, W]``.
        queried: for each scale that ran, the share of all pixels, padding included, that the head
            was asked about. Masks below ``min_area`` do not count; the list is empty if all are.
        changed: float32 ``[B]``, share of the pixels that have crossed 0.5.
    """

    mask: Tensor
    queried: list[float]
    changed: Tensor


def reflect(x: Tensor, pad: int) -> Tensor:
    """Pad every side by ``pad`` reflected pixels, as ``F.pad(x, [pad] * 4, mode='reflect')``.

    A side that is no longer than ``pad`` has too few pixels to reflect: its border is repeated.

    Args:
        x: ``[..., H, W]``, any dtype; ``F.pad`` reflects floats alone.
        pad: pixels.

    Returns:
        ``[..., H + 2 pad, W + 2 pad]``.
    """
    for dim in (-2, -1) if pad else ():
        size = x.shape[dim]
        index = torch.arange(-pad, size + pad, device=x.device)
        if size > pad:
            index = (size - 1) - ((size - 1) - index.abs()).abs()
        x = x.index_select(dim, index.clamp_(0, size - 1))
    return x


def stack_masks(data_samples: list[SegDataSample], name: str, inputs: Tensor) -> Tensor:
    """Masks of all samples in one tensor, padded with background to the inputs' size.

    Args:
        data_samples: of a batch; the masks are ``PixelData`` of ``[1, h, w]``.
        name: field of the samples that holds the mask.
        inputs: ``[B, 3, H, W]``.

    Returns:
        ``[B, 1, H, W]`` on the inputs' device.
    """
    height, width = inputs.shape[2:]
    return torch.stack([
        F.pad(m, (0, width - m.shape[2], 0, height - m.shape[1]))
        for m in (sample.get(name).data.to(inputs.device) for sample in data_samples)])


def all_pixels(count: int, window: Window, device: torch.device) -> Tensor:
    """Every pixel of a window in ``count`` images, int64 ``[Q, 3]``: image, row, column."""
    return torch.cartesian_prod(
        torch.arange(count, device=device),
        torch.arange(window.top, window.bottom, device=device),
        torch.arange(window.left, window.right, device=device))


@MODELS.register_module()
class CRMRefiner(BaseModel):
    """Refine a coarse mask of any object at any resolution.

    Image and current mask are encoded at 1/8, 1/4, 1/2 and full size, one after the other. At each
    of these scales the head computes a probability for every full-resolution pixel, and these
    probabilities are the mask that the next scale starts from.

    Large images are encoded in tiles. These overlap by as much as the network sees, and are resized
    by the coordinates of the whole image, so that the result is that without tiles, up to rounding.

    Args:
        backbone, neck, head: configs of encoder, fusion and :class:`.head.ImplicitPointHead`.
        loss_weights: weights by name; those not given keep the default of ``LOSSES``. ``bce``:
            binary cross entropy, ``l1``, ``l2``: mean absolute and squared error, ``sobel``:
            difference of the edges.
        data_preprocessor: config; its mean, standard deviation and channel order also normalize
            images that are given to :meth:`refine` as uint8.
        train_cfg: ``scales``: for each batch one of them is drawn, and the encoder sees the crop at
            that size, while the loss is over every pixel of the full one. The paper trains at full
            size alone, the default, and relies on the head to extend to other scales.
        test_cfg: settings of inference; those not given keep the default of ``DEFAULTS``:

            - ``scales``: sizes of the encoder's input relative to the padded image, ascending.
            - ``pad``: pixels that are reflected around image and mask.
            - ``min_long_side``: a scale is left out if the long side of its input is shorter, in
              pixels. The last scale always runs.
            - ``min_area``: a mask of fewer pixels is returned as it is.
            - ``query_chunk``: number of points that the head answers at a time. ``None``: 8,192 on
              a CPU, where they stay in the cache, 524,288 on a GPU, but fewer where they would need
              more than a quarter of ``max_bytes``.
            - ``max_bytes``: memory to use above weights and inputs, which tiles are chosen to keep
              to. ``None``: no bound.
            - ``selector``: config of a selector, as SparseRefine's, that is given the two classes
              of the current mask. From the scale ``select_from`` on, the head answers only the
              pixels that it selects, and tiles without any are not encoded. ``None``: every pixel.
            - ``amp``: encode in half precision, on a CPU bfloat16, if it has instructions for it.
            - ``accept_iou``: a refined mask whose IoU with the coarse one is lower is discarded for
              the coarse one. ``None``: never.
            - ``edit_band``: pixels farther from the coarse boundary than this share of ``H + W``
              keep the coarse value. ``None``: none do.

    Raises:
        ValueError: a key is unknown or a value out of range.
    """

    def __init__(self,
                 *,
                 backbone: dict,
                 neck: dict,
                 head: dict,
                 loss_weights: dict[str, float] | None = None,
                 data_preprocessor: dict | None = None,
                 pretrained: None = None,  # mmseg.apis.init_model sets it
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.head = MODELS.build(head)
        self.loss_weights = LOSSES | dict(loss_weights or {})
        if unknown := self.loss_weights.keys() - LOSSES.keys():
            raise ValueError(f'CRMRefiner.loss_weights has the keys {list(LOSSES)}, got '
                             f'{sorted(unknown)}')
        self.sobel = SobelLoss()
        self.train_scales = tuple((train_cfg or dict(scales=(1.0,)))['scales'])
        self.test_cfg = self._check_test_cfg(test_cfg)
        selector = self.test_cfg.selector
        self.selector = None if selector is None else MODELS.build(dict(selector, num_classes=2))

    @staticmethod
    def _check_test_cfg(test_cfg: dict | None) -> ConfigDict:
        cfg = ConfigDict(DEFAULTS | dict(test_cfg or {}))
        if unknown := set(cfg) - set(DEFAULTS):
            raise ValueError(f'CRMRefiner.test_cfg has no keys {sorted(unknown)}; it has '
                             f'{sorted(DEFAULTS)}')
        scales = tuple(cfg.scales)
        if not scales or min(scales) <= 0 or list(scales) != sorted(scales):
            raise ValueError('CRMRefiner.test_cfg.scales must be positive and ascending, got '
                             f'{scales}')
        for name in ('query_chunk', 'max_bytes'):
            if cfg[name] is not None and cfg[name] < 1:
                raise ValueError(f'CRMRefiner.test_cfg.{name} must be at least 1, got {cfg[name]}')
        if cfg.pad < 0:
            raise ValueError(f'CRMRefiner.test_cfg.pad must not be negative, got {cfg.pad}')
        for name in ('accept_iou', 'edit_band'):
            if cfg[name] is not None and not 0 <= cfg[name] <= 1:
                raise ValueError(f'CRMRefiner.test_cfg.{name} must be in [0, 1], got {cfg[name]}')
        return cfg

    # ---- training -----------------------------------------------------------------------------

    def forward(self, inputs: Tensor, data_samples: list[SegDataSample],
                mode: str = 'tensor') -> Tensor | list[SegDataSample] | dict[str, Tensor]:
        """Called by mmengine: one of :meth:`loss`, :meth:`predict` and :meth:`logits`.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.
            data_samples: with ``coarse_mask``, for the loss also ``gt_mask``: float ``[1, H, W]``
                from 0 to 1.
            mode: ``'loss'``, ``'predict'``, or ``'tensor'`` for logits ``[B, 1, H, W]`` of one pass
                at full size.

        Raises:
            ValueError: the mode is none of these.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.logits(inputs, stack_masks(data_samples, 'coarse_mask', inputs))
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")

    def logits(self, images: Tensor, masks: Tensor, scale: float = 1.0) -> Tensor:
        """Logits of one pass over whole images, without tiles or padding.

        Args:
            images: normalized, ``[B, 3, H, W]``.
            masks: float ``[B, 1, H, W]`` from 0 to 1.
            scale: size of the encoder's input relative to the images.

        Returns:
            ``[B, 1, H, W]``.
        """
        size = size_of(images)
        small = scaled(size, scale)
        inputs = resize_aligned(torch.cat([images, 2 * masks - 1], 1), small, whole(small))
        features = self.neck(self.backbone(inputs))
        queries = all_pixels(len(images), whole(size), images.device)
        axes = self.head.axes(size, size_of(features))
        return self.head(self.head.project(features), queries, axes).view(-1, 1, *size)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Four losses of one pass at a scale drawn from ``train_cfg.scales``.

        Soft targets are cut at 0.5 for the cross entropy, and left as they are for the others.
        """
        target = stack_masks(data_samples, 'gt_mask', inputs)
        scale = self.train_scales[int(torch.randint(len(self.train_scales), ()))]
        logits = self.logits(
            inputs, stack_masks(data_samples, 'coarse_mask', inputs), scale).float()
        probability, weights = logits.sigmoid(), self.loss_weights
        return dict(
            loss_bce=weights['bce'] * F.binary_cross_entropy_with_logits(
                logits, (target > 0.5).float()),
            loss_l1=weights['l1'] * F.l1_loss(probability, target),
            loss_l2=weights['l2'] * F.mse_loss(probability, target),
            loss_sobel=weights['sobel'] * self.sobel(probability, target))

    # ---- inference ----------------------------------------------------------------------------

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Refine the coarse mask of every sample.

        Returns:
            The samples with ``refined_mask``, float32 ``[1, H, W]``, and in their metainfo
            ``queried`` and ``changed`` of :class:`Refinement`.
        """
        for image, sample in zip(inputs, data_samples, strict=True):
            coarse = sample.coarse_mask.data.to(inputs.device)
            height, width = coarse.shape[1:]  # the preprocessor may have padded the image
            result = self.refine(image[None, :, :height, :width], coarse)
            sample.refined_mask = PixelData(data=result.mask)
            sample.set_metainfo(dict(queried=result.queried, changed=float(result.changed)))
        return data_samples

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images ``[B, 3, h, w]`` as loaded (BGR), as the data preprocessor does."""
        return prepare(images, self.data_preprocessor)

    @torch.no_grad()
    def refine(self, images: Tensor, masks: Tensor) -> Refinement:
        """Refine masks from coarse to fine.

        Images and masks may stay in main memory while the model is on a GPU: only tiles are copied,
        and the result is where the masks are.

        Args:
            images: ``[B, 3, H, W]``, normalized, or uint8 as loaded.
            masks: float ``[B, H, W]`` from 0 to 1.

        Raises:
            ValueError: images and masks do not fit each other, a mask is out of range, or
                ``max_bytes`` is too little for images of this size; the message says how much is
                needed.
        """
        if images.shape[2:] != masks.shape[1:] or len(images) != len(masks):
            raise ValueError(f'images {list(images.shape)} and masks {list(masks.shape)} must '
                             'agree in number and size')
        if not ((masks >= 0) & (masks <= 1)).all():
            raise ValueError('masks must hold probabilities from 0 to 1, got '
                             f'{float(masks.min()):g} to {float(masks.max()):g}')
        cfg, coarse = self.test_cfg, masks.float()
        large = (coarse > 0.5).flatten(1).sum(1) >= cfg.min_area
        queried: list[float] = []
        if not large.all():
            mask, changed = coarse.clone(), torch.zeros_like(coarse[:, 0, 0])
            if large.any():
                mask[large], queried, changed[large] = self.refine(images[large], masks[large])
            return Refinement(mask, queried, changed)
        images, p = reflect(images, cfg.pad), reflect(coarse, cfg.pad)
        full = size_of(p)
        sizes = [scaled(full, scale) for scale in cfg.scales]
        if cfg.max_bytes is not None:
            self.tiles(images, p, sizes[-1])  # an error comes now, not after the smaller scales
        for scale, size in zip(cfg.scales, sizes, strict=True):
            if max(size) < cfg.min_long_side and scale != cfg.scales[-1]:
                continue
            selected = None
            if self.selector is not None and scale >= cfg.select_from:
                z = torch.stack([torch.zeros_like(p), p.logit(1e-6)], 1)
                selected = self.selector(images, UpsampledLogits(z, full, mode='nearest')).mask
                del z
            p, share = self.refine_scale(images, p, size, selected)
            queried.append(share)
        pad = cfg.pad
        return self.accept(coarse, p[:, pad:full[0] - pad, pad:full[1] - pad], queried)

    def accept(self, coarse: Tensor, p: Tensor, queried: list[float]) -> Refinement:
        """Put the coarse mask back where ``test_cfg.accept_iou`` and ``.edit_band`` say so."""
        cfg, before = self.test_cfg, coarse > 0.5
        if cfg.edit_band is not None:
            radius = round(cfg.edit_band * sum(coarse.shape[1:]))
            p = torch.where(dilate(label_boundary(before), radius), p, coarse)
        if cfg.accept_iou is not None:
            after = p > 0.5
            union = (after | before).flatten(1).sum(1)
            keep = (after & before).flatten(1).sum(1) < cfg.accept_iou * union
            p = torch.where(keep[:, None, None], coarse, p)
        return Refinement(p, queried, ((p > 0.5) != before).flatten(1).float().mean(1))

    def refine_scale(self, images: Tensor, p: Tensor, size: tuple[int, int],
                     selected: Tensor | None) -> tuple[Tensor, float]:
        """Encode at one size and answer at full size.

        Args:
            images: padded, ``[B, 3, T, U]``.
            p: the current mask, probabilities ``[B, T, U]``.
            size: ``(H, W)`` of the encoder's input.
            selected: bool ``[B, T, U]``, which pixels to answer; the others keep ``p``. ``None``
                for all.

        Returns:
            The next mask ``[B, T, U]``, and the share of its pixels that were answered.
        """
        full, total = size_of(p), 0
        result = torch.empty_like(p) if selected is None else p.clone()
        tiles = self.tiles(images, p, size, selected)
        axes = self.head.axes(full, self.stage_sizes(size)[self._level()])
        for tile in tiles:
            with self._precision():
                projected = self.encode(images, p, size, tile)
            for queries in self.queries(tile.pixels, selected, p):
                with self._precision():
                    answers = self.head(
                        projected, queries.to(projected.device), axes, tile.cells)
                result[queries.unbind(1)] = answers[:, 0].float().sigmoid().to(p.device)
                total += len(queries)
            del projected
            if self.test_cfg.max_bytes is not None and p.device.type == 'cpu':
                trim_heap()  # tiles differ in size, so that the C library would keep blocks of each
        empty = p.flatten(1).sum(1) < 1
        return torch.where(empty[:, None, None], 0, result), total / p.numel()

    def tiles(self, images: Tensor, p: Tensor, size: tuple[int, int],
              selected: Tensor | None = None) -> list[Tile]:
        """The tiles of one scale; arguments as of :meth:`refine_scale`.

        Raises:
            ValueError: ``max_bytes`` is too little even for the smallest tiles.
        """
        level, full = self._level(), size_of(p)
        bound = self._bytes_for_tiles(images, p)
        tiles, need = plan_tiles(
            size, full, self.stage_sizes(size)[level], self.backbone.stage_strides[level],
            selected, len(p), bound)
        if tiles is None:
            cfg = self.test_cfg
            rest = cfg.max_bytes - bound - QUERY_BYTES * self._chunk() + need
            least = rest + QUERY_BYTES * (cfg.query_chunk or self._full_chunk())
            if cfg.query_chunk is None:
                least = min(least, rest / (1 - QUERY_SHARE))
            raise ValueError(
                f'test_cfg.max_bytes is {cfg.max_bytes}, but {len(p)} image(s) of '
                f'{full[0]}x{full[1]} pixels, padding included, need at least {math.ceil(least)}')
        return tiles

    def _bytes_for_tiles(self, images: Tensor, p: Tensor) -> float:
        """The bytes of ``max_bytes`` that the padded maps and a chunk of queries leave over."""
        cfg = self.test_cfg
        if cfg.max_bytes is None:
            return math.inf
        maps = images.numel() * images.element_size() + 2 * p.numel() * p.element_size()
        if self.selector is not None:
            maps += SELECTOR_BYTES * p.numel()
        return cfg.max_bytes - maps - QUERY_BYTES * self._chunk()

    def _chunk(self) -> int:
        """Number of points that the head answers at a time."""
        cfg = self.test_cfg
        if cfg.query_chunk is not None:
            return cfg.query_chunk
        chunk = self._full_chunk()
        return chunk if cfg.max_bytes is None else max(
            1, min(chunk, int(QUERY_SHARE * cfg.max_bytes / QUERY_BYTES)))

    def _full_chunk(self) -> int:
        """That number where neither it nor the memory is given."""
        return 2**13 if next(self.parameters()).device.type == 'cpu' else 2**19

    def _precision(self) -> AbstractContextManager:
        device = next(self.parameters()).device.type
        dtype = torch.bfloat16 if device == 'cpu' else torch.float16
        return torch.autocast(device, dtype, enabled=self.test_cfg.amp and takes_bfloat16(device))

    def encode(self, images: Tensor, p: Tensor, size: tuple[int, int], tile: Tile) -> Tensor:
        """Encode a tile; arguments as of :meth:`refine_scale`.

        Returns:
            ``[B, *tile.cells.size, D]``, features as :meth:`.head.ImplicitPointHead.project` gives
            them.
        """
        device = next(self.parameters()).device
        image = resize_aligned(images, size, tile.window)
        if images.dtype == torch.uint8:
            image = self.normalize(image)
        mask = resize_aligned(p[:, None], size, tile.window)
        stages = self.backbone(torch.cat([image.to(device), 2 * mask.to(device) - 1], 1))
        windows = [tile.window.coarser(stride) for stride in self.backbone.stage_strides]
        return self.head.project(
            self.neck(stages, self.stage_sizes(size), windows, tile.cells)).contiguous()

    def _level(self) -> int:
        """Number of the encoder's output whose size the feature map has."""
        return self.neck.stages[self.neck.out_level]

    def stage_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of every output of the encoder for an input of ``size = (H, W)``."""
        return [tuple(-(-n // stride) for n in size) for stride in self.backbone.stage_strides]

    def queries(self, pixels: Window, selected: Tensor | None, p: Tensor) -> Iterator[Tensor]:
        """The pixels of a tile that the head answers, in chunks.

        Args:
            pixels: of the tile.
            selected: of :meth:`refine_scale`.
            p: the current mask ``[B, T, U]``, for its device and ``B``.

        Yields:
            int64 ``[Q, 3]``: image, row, column of the whole target.
        """
        chunk = self._chunk()
        if selected is not None:
            queries = pixels.of(selected).nonzero()
            queries += queries.new_tensor([0, pixels.top, pixels.left])
            yield from queries.split(chunk) if len(queries) else ()
            return
        rows = max(chunk // (len(p) * pixels.size[1]), 1)
        for top in range(pixels.top, pixels.bottom, rows):
            part = pixels._replace(top=top, bottom=min(top + rows, pixels.bottom))
            yield all_pixels(len(p), part, p.device)
