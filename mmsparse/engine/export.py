"""Writing a segmentor as ONNX at one image size.

Letters: ``K`` classes (1 channel for a sigmoid), ``H, W`` size of the image in pixels.
"""
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose, pseudo_collate
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from torch import Tensor, nn

from mmsparse.preprocessing import normalize

OPSET = 18
TOLERANCE = 1e-3  # relative, of float32 logits; share of pixels with another class
# What mmseg's pipelines do to a picture in memory that needs no resizing.
PLAIN = (dict(type='mmseg.LoadImageFromNDArray'), dict(type='mmseg.PackSegInputs'))


class ExportedSegmentor(nn.Module):
    """From pixels to what ``predict`` stores, normalization included: what an ONNX file computes.

    Args:
        model: an mmseg segmentor.
        include_argmax: give classes, not scores.
    """

    def __init__(self, model: BaseSegmentor, include_argmax: bool) -> None:
        super().__init__()
        self.model = model.eval()
        self.include_argmax = include_argmax

    def forward(self, image: Tensor) -> Tensor:
        """``seg_logits`` ``[1, K, H, W]``, or ``pred_sem_seg`` as int64 ``[1, H, W]``.

        Args:
            image: float32 ``[1, 3, H, W]``, 0 to 255, in the channel order that the network takes:
                RGB where the data preprocessor has ``bgr_to_rgb``.
        """
        height, width = image.shape[2:]
        sample, = self.model.predict(self._pad(normalize(image, self.model.data_preprocessor)))
        if self.include_argmax:
            return sample.pred_sem_seg.data[..., :height, :width].long()
        return sample.seg_logits.data[None, :, :height, :width]

    def _pad(self, image: Tensor) -> Tensor:
        """On the right and at the bottom, as the data preprocessor does in testing."""
        padding = self.model.data_preprocessor.test_cfg or {}
        divisor, wanted = padding.get('size_divisor') or 1, padding.get('size') or (0, 0)
        bottom, right = (max(size - n, -n % divisor)
                         for size, n in zip(wanted, image.shape[2:], strict=True))
        return F.pad(image, (0, right, 0, bottom), value=self.model.data_preprocessor.pad_val)


@torch.no_grad()
def export_onnx(model: nn.Module, path: Path, size: tuple[int, int], include_argmax: bool,
                pipeline: Compose | None = None) -> float:
    """Write a model, once the file has given what the model predicts for a random picture.

    The prediction is that of ``test_step``, behind the pipeline and the data preprocessor. In
    sliding mode the file holds every window, one after the other.

    Args:
        model: an mmseg segmentor on the CPU.
        path: of the file; nothing stands there if the file differs from the model.
        size: ``(H, W)``, fixed.
        include_argmax: as in :class:`ExportedSegmentor`.
        pipeline: test pipeline for ``dict(img=picture)`` that keeps the size; ``None`` for none.

    Returns:
        Largest difference of the scores relative to the largest; with ``include_argmax`` the share
        of pixels whose class differs.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime are missing.
        TypeError: the model is no segmentor of mmseg's.
        ValueError: the file differs from the model by more than ``TOLERANCE``.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch's exporter needs
    except ImportError as error:
        raise ImportError(f'{error}; pip install onnx onnxruntime onnxscript') from error
    if not (isinstance(model, BaseSegmentor)
            and isinstance(model.data_preprocessor, SegDataPreProcessor)):
        raise TypeError(f'{type(model).__name__} is no segmentor of mmseg with a '
                        'SegDataPreProcessor')
    exported = ExportedSegmentor(model, include_argmax).eval()
    picture = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    expected = predict(model, picture, include_argmax, pipeline or Compose(PLAIN))
    if model.data_preprocessor.channel_conversion:
        picture = picture[..., ::-1]
    image = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))
    # mmseg asserts on the data that its windows cover the image: only `strict` can trace that.
    slides = any(part.test_cfg.get('mode') == 'slide' for part in model.modules()
                 if isinstance(part, EncoderDecoder))
    program = torch.export.export(exported, (image,), strict=slides)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        torch.onnx.export(
            program, (image,), str(written), dynamo=True, opset_version=OPSET,
            external_data=False, input_names=['image'],
            output_names=['classes' if include_argmax else 'logits'], verbose=False)
        session = onnxruntime.InferenceSession(str(written), providers=['CPUExecutionProvider'])
        output, = session.run(None, {'image': image.numpy()})
        if include_argmax:
            difference = float((output != expected).mean())
        else:
            difference = float(np.abs(output - expected).max() / np.abs(expected).max())
        if not difference < TOLERANCE:
            raise ValueError(f'the file differs from the model by {difference:.1e}, more than '
                             f'{TOLERANCE:g}')
        written.replace(path)
    return difference


def predict(model: BaseSegmentor, picture: np.ndarray, include_argmax: bool, pipeline: Compose
            ) -> np.ndarray:
    """What the model stores for a picture: scores ``[1, K, H, W]`` or classes ``[1, H, W]``.

    Args:
        picture: uint8 BGR ``[H, W, 3]``.
    """
    sample, = model.test_step(pseudo_collate([pipeline(dict(img=picture))]))
    if include_argmax:
        return sample.pred_sem_seg.data.reshape(1, *picture.shape[:2]).long().numpy()
    return sample.seg_logits.data[None].numpy()
