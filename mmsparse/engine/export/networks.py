"""What an ONNX file computes: whole models, from pixels to what they store.

Letters: ``K`` classes (1 channel for a sigmoid), ``H, W`` size of the image in pixels.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.models.crm.refiner import CRMRefiner, reflect
from mmsparse.models.crm.segmentor import RefinedSegmentor
from mmsparse.models.sparserefine.segmentor import Refinable, SparseRefineSegmentor
from mmsparse.preprocessing import normalize, plain_samples
from mmsparse.sizes import scaled, size_of
from mmsparse.sparse import Selector
from mmsparse.sparse.upsampled import classes_of


class NotExportable(TypeError):
    """A model that has no ONNX form; the message says why, and what has one."""


class ExportedSegmentor(nn.Module):
    """From pixels to what ``predict`` stores, normalization included.

    Args:
        model: an mmseg segmentor.
        include_argmax: give classes, not scores.
    """

    input_names = ('image',)

    def __init__(self, model: BaseSegmentor, include_argmax: bool) -> None:
        super().__init__()
        self.model = model.eval()
        self.include_argmax = include_argmax

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the file."""
        return ('classes' if self.include_argmax else 'logits',)

    @property
    def slides(self) -> bool:
        """Whether mmseg cuts the image into windows."""
        return any(part.test_cfg.get('mode') == 'slide' for part in self.model.modules()
                   if isinstance(part, EncoderDecoder))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``seg_logits`` ``[1, K, H, W]``, or ``pred_sem_seg`` as int64 ``[1, H, W]``.

        Args:
            image: float32 ``[1, 3, H, W]``, 0 to 255, in the channel order that the network takes:
                RGB where the data preprocessor has ``bgr_to_rgb``.
        """
        height, width = size_of(image)
        sample, = self.model.predict(self.prepare(image))
        if self.include_argmax:
            return sample.pred_sem_seg.data[..., :height, :width].long(),
        return sample.seg_logits.data[None, :, :height, :width],

    def prepare(self, image: Tensor) -> Tensor:
        """Normalized, and padded on the right and at the bottom as in testing."""
        preprocessor = self.model.data_preprocessor
        padding = preprocessor.test_cfg or {}
        divisor, wanted = padding.get('size_divisor') or 1, padding.get('size') or (0, 0)
        bottom, right = (max(size - n, -n % divisor)
                         for size, n in zip(wanted, image.shape[2:], strict=True))
        return F.pad(normalize(image, preprocessor), (0, right, 0, bottom),
                     value=preprocessor.pad_val)


class ExportedSparseRefine(ExportedSegmentor):
    """SparseRefine as a whole; beside the result the file gives what was selected.

    However many pixels that is, they go through one graph: ``mmsparse.sparse.TracedRowMap``.

    Raises:
        NotExportable: the low-resolution segmentor or the refinement slides windows, or a budget is
            a share of an image that is padded.
    """

    model: SparseRefineSegmentor

    def __init__(self, model: SparseRefineSegmentor, include_argmax: bool) -> None:
        super().__init__(model, include_argmax)
        if model.test_cfg['mode'] == 'slide':
            raise NotExportable(
                "the refinement has test_cfg.mode='slide', and a file would hold the U-Net once "
                'for every window; export with --cfg-options model.test_cfg=None')
        if self.slides:
            raise NotExportable(
                "the low-resolution segmentor has test_cfg.mode='slide', whose checks of values "
                "the exporter cannot trace beside a number of pixels that varies; export with "
                '--cfg-options model.segmentor.test_cfg.mode=whole if that serves as well')

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the file."""
        return *super().output_names, 'selected'

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """As of the base class, and the refined pixels, bool ``[1, H, W]``."""
        height, width = size_of(image)
        inputs = self.prepare(image)
        batch = self.model.select(inputs, self.samples(inputs, (height, width)))
        return (self.result(batch)[..., :height, :width],
                batch.selection.mask[:, :height, :width])

    def result(self, batch: Refinable) -> Tensor:
        """What :meth:`forward` gives, padding included, of the pixels that were selected."""
        model = self.model
        refined = model.refine(batch.pixels, batch.logits)
        if self.include_argmax:
            return batch.pixels.write(
                batch.low.classes().clone(), classes_of(refined, model.threshold))
        logits = model.write_logits(batch, refined)
        return logits.sigmoid() if model.out_channels == 1 else logits

    def samples(self, inputs: Tensor, size: tuple[int, int]) -> list[SegDataSample]:
        """Data samples that say what of the inputs is padding: that is not selected."""
        samples = plain_samples(inputs)
        height, width = size_of(inputs)
        if (height, width) == size:
            return samples
        selector = self.model.selector
        if isinstance(selector, Selector) and selector.max_density is not None:
            raise NotExportable(
                f'the data preprocessor pads {size[0]}x{size[1]} to {height}x{width}, so that '
                'selector.max_density is no fixed number of pixels; export for a size that needs '
                'no padding, or give selector.max_points instead')
        samples[0].set_metainfo(dict(
            padding_size=[0, width - size[1], 0, height - size[0]]))
        return samples


class ExportedRefiner(nn.Module):
    """CRM on images of one size: encoder and head at every scale, all pixels, without tiles.

    Args:
        model: a refiner.

    Raises:
        NotExportable: it has a selector.
    """

    input_names = ('image', 'mask')
    output_names = ('probability',)

    def __init__(self, model: CRMRefiner) -> None:
        super().__init__()
        self.model = model.eval()
        if model.selector is not None:
            raise NotExportable('the head of an exported CRMRefiner answers every pixel; export '
                                'with --cfg-options model.test_cfg.selector=None')

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Refined probabilities, float32 ``[1, H, W]``.

        Args:
            image: float32 ``[1, 3, H, W]``, 0 to 255, as of :class:`ExportedSegmentor`.
            mask: float32 ``[1, H, W]``, from 0 to 1.
        """
        cfg = self.model.test_cfg
        images = reflect(normalize(image, self.model.data_preprocessor), cfg.pad)
        p = reflect(mask, cfg.pad)
        full = size_of(p)
        for scale in cfg.scales:
            if max(scaled(full, scale)) < cfg.min_long_side and scale != cfg.scales[-1]:
                continue
            answers = self.model.logits(images, p[:, None], scale)[:, 0].sigmoid()
            p = torch.where(p.sum() < 1, 0, answers)
        pad = cfg.pad
        refined = self.model.accept(mask, p[:, pad:full[0] - pad, pad:full[1] - pad], []).mask
        return torch.where((mask > 0.5).sum() >= cfg.min_area, refined, mask),


Exported = ExportedSegmentor | ExportedRefiner


def exported(model: nn.Module, include_argmax: bool) -> Exported:
    """What a file of the model computes.

    Raises:
        NotExportable: it has no ONNX form.
    """
    if isinstance(model, CRMRefiner):
        return ExportedRefiner(model)
    for part in model.modules():
        if part is not model and isinstance(part, SparseRefineSegmentor):
            raise NotExportable('a SparseRefineSegmentor inside another model has no ONNX form; '
                                'export it by its own config')
        if isinstance(part, RefinedSegmentor):
            raise NotExportable(
                'a RefinedSegmentor crops the objects that it finds, whose number and sizes no '
                'ONNX file can follow; export the segmentor and the refiner, each by its own '
                'config')
    if not (isinstance(model, BaseSegmentor)
            and isinstance(model.data_preprocessor, SegDataPreProcessor)):
        raise NotExportable(why_not(model))
    build: Callable[..., ExportedSegmentor] = (
        ExportedSparseRefine if isinstance(model, SparseRefineSegmentor) else ExportedSegmentor)
    return build(model, include_argmax)


def why_not(model: nn.Module) -> str:
    """Why a model that is no segmentor cannot be exported."""
    name = type(model).__name__
    # By name: importing mmdet's would import mmdet.
    if any(cls.__name__ == 'BaseDetector' for cls in type(model).__mro__):
        return (f'{name} is a detector: which objects its heads look at is decided by sorting and '
                'suppression, which mmdeploy exports; its mask heads (EffSeg, RefineMask) compute '
                'on cells of these objects, and have no form without them')
    return f'{name} is no segmentor of mmseg with a SegDataPreProcessor'
