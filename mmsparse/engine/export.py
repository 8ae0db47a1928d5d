"""Writing a segmentor as ONNX at one image size."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

OPSET = 18


class ExportedSegmentor(nn.Module):
    """From pixels to logits or classes, normalization included: what an ONNX file computes.

    Args:
        model: an mmseg segmentor.
        size: ``(H, W)``.
        include_argmax: give classes, not logits.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], include_argmax: bool) -> None:
        super().__init__()
        self.model = model.eval()
        self.metas = [dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)]
        self.include_argmax = include_argmax

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[1, K, H, W]`` or classes, int64 ``[1, H, W]``.

        Args:
            image: float32 ``[1, 3, H, W]``, 0 to 255, in the channel order that the network takes:
                RGB where the data preprocessor has ``bgr_to_rgb``.
        """
        preprocessor = self.model.data_preprocessor
        x = (image - preprocessor.mean) / preprocessor.std
        logits = self.model.encode_decode(x, self.metas)
        return logits.argmax(1) if self.include_argmax else logits


@torch.no_grad()
def export_onnx(model: nn.Module, path: Path, size: tuple[int, int], include_argmax: bool
                ) -> float:
    """Write a model and compare the file with it on a random image.

    Args:
        model: an mmseg segmentor on the CPU, of one that predicts whole images.
        path: of the file.
        size: ``(H, W)``, fixed.
        include_argmax: as in :class:`ExportedSegmentor`.

    Returns:
        Largest difference of the logits relative to the largest logit; with ``include_argmax``
        the share of pixels whose class differs.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime are missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch's exporter needs
    except ImportError as error:
        raise ImportError(f'{error}; pip install onnx onnxruntime onnxscript') from error
    exported = ExportedSegmentor(model, size, include_argmax)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    torch.onnx.export(
        exported, (image,), str(path), dynamo=True, opset_version=OPSET, external_data=False,
        input_names=['image'], output_names=['classes' if include_argmax else 'logits'],
        verbose=False)
    expected = exported(image).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    found, = session.run(None, {'image': image.numpy()})
    if include_argmax:
        return float((found != expected).mean())
    return float(np.abs(found - expected).max() / np.abs(expected).max())
