"""Writing a model as an ONNX file for one size of images, once the file gives what the model does.

Letters: ``K`` classes (1 channel for a sigmoid), ``H, W`` size of the image in pixels.
"""
from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from mmsparse.compat import turns_channels
from mmsparse.hosts import last_head

from .networks import Exported, ExportedRefiner, ExportedSparseRefine, NotExportable, exported

OPSET = 18
# Of float32 scores, relative to the largest; shares of pixels of another class, of pixels selected
# by one and not by the other.
TOLERANCE = 1e-3
# Share of a refined picture's pixels that may differ more: which of two opinions an ensembler takes
# can hang on the last digit.
OUTLIERS = 1e-4
# What mmseg's pipelines do to a picture in memory that needs no resizing.
PLAIN = (dict(type='mmseg.LoadImageFromNDArray'), dict(type='mmseg.PackSegInputs'))
RUNNER = Path(__file__).with_name('run_onnx.py')


class Agreement(NamedTuple):
    """How well a file computes what its model does, for a picture that was made.

    Attributes:
        difference: largest difference of the scores relative to the largest; of classes, the share
            of pixels that have another one.
        density: of SparseRefine, the share of the pixels that the file selected; else ``None``.
        reselected: share of the pixels that either the file or the model selected.
    """

    difference: float
    density: float | None = None
    reselected: float = 0.0


@torch.no_grad()
def export_onnx(model: nn.Module, path: Path, size: tuple[int, int], include_argmax: bool,
                pipeline: Compose | None = None,
                dataset_meta: Mapping[str, Any] | None = None) -> Agreement:
    """Write a model, once the file has given what the model predicts for a picture.

    The prediction is that of ``test_step``, behind the pipeline and the data preprocessor; of a
    :class:`.CRMRefiner` that of ``refine``. In sliding mode the file holds every window, one after
    the other. Beside the file stands ``run_onnx.py``, which runs it without torch.

    Args:
        model: an mmseg segmentor, SparseRefine's for one, or a :class:`.CRMRefiner`; on the CPU.
        path: of the file; nothing stands there if the file differs from the model.
        size: ``(H, W)``, fixed.
        include_argmax: as in :class:`.ExportedSegmentor`; a refiner has no classes.
        pipeline: test pipeline for ``dict(img=picture)`` that keeps the size; ``None`` for none.
        dataset_meta: names and colors of the classes, ``classes`` and ``palette``, for the program
            beside the file; what is missing is made up.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime are missing.
        NotExportable: the model has no ONNX form, or what stands in its way is a setting.
        ValueError: the file differs from the model by more than ``TOLERANCE``.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch's exporter needs
    except ImportError as error:
        raise ImportError(f'{error}; pip install "mmsparse[export]"') from error
    network = exported(model, include_argmax).eval()
    picture, mask = made_up(size)
    inputs = dict(image=as_input(network, picture), mask=torch.from_numpy(mask)[None])
    inputs = {name: inputs[name] for name in network.input_names}
    # mmseg asserts on the data that its windows cover the image: only `strict` can trace that.
    strict = not isinstance(network, ExportedRefiner) and network.slides
    try:
        program = torch.onnx.export(
            torch.export.export(network, tuple(inputs.values()), strict=strict),
            dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=network.input_names, output_names=network.output_names)
    except RuntimeError as error:  # of torch's exporters, over many lines
        raise NotExportable(f"torch's exporter cannot follow {type(model).__name__}: "
                            f'{str(error).strip().splitlines()[0]}') from error
    assert program is not None
    program.model.metadata_props['mmsparse'] = json.dumps(
        facts(network, dataset_meta or {}))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        program.save(written)
        session = onnxruntime.InferenceSession(str(written), providers=['CPUExecutionProvider'])
        outputs = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        agreement = compare(network, picture, mask, outputs, pipeline or Compose(PLAIN))
        worst = max(agreement.difference, agreement.reselected)
        if not worst < TOLERANCE:
            raise ValueError(f'the file differs from the model by {worst:.1e}, more than '
                             f'{TOLERANCE:g}')
        written.replace(path)
    shutil.copyfile(RUNNER, path.with_name(RUNNER.name))
    return agreement


def made_up(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 BGR ``[H, W, 3]``, half noise and half calm; a mask float32 ``[H, W]``."""
    height, width = size
    rng = np.random.default_rng(0)
    picture = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    calm = cv2.resize(picture[:4, :4], (width, height))
    picture[:, width // 2:] = calm[:, width // 2:]
    mask = np.zeros(size, np.float32)
    mask[height // 5:, width // 4:-(width // 6) or None] = 1
    return picture, cv2.blur(mask, (5, 5))


def as_input(network: Exported, picture: np.ndarray) -> Tensor:
    """A picture uint8 BGR ``[H, W, 3]`` as a file takes it: float32 ``[1, 3, H, W]``."""
    if turns_channels(network.model.data_preprocessor):
        picture = picture[..., ::-1]
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))


def facts(network: Exported, dataset_meta: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run_onnx.py`` reads in the file: channel order, classes, colors, threshold.

    The colors of classes that have none are drawn as mmseg draws them.
    """
    known: dict[str, Any] = dict(
        rgb=turns_channels(network.model.data_preprocessor), threshold=0.5)
    if isinstance(network, ExportedRefiner):
        return known | dict(classes=['background', 'object'], palette=[[0, 0, 0], [255, 200, 0]])
    head = last_head(network.model)
    count = max(head.num_classes, 2)
    names = dataset_meta.get('classes') or [f'class {i}' for i in range(count)]
    colors = dataset_meta.get('palette') or np.random.RandomState(42).randint(
        0, 255, size=(count, 3)).tolist()
    return known | dict(
        threshold=head.threshold if head.out_channels == 1 else None,
        classes=list(names), palette=[list(map(int, color)) for color in colors])


def compare(network: Exported, picture: np.ndarray, mask: np.ndarray, outputs: Sequence[np.ndarray],
            pipeline: Compose) -> Agreement:
    """What a file gave for a picture, beside what the model gives.

    SparseRefine's result is compared as refined on the pixels that the file selected: rounding
    decides about single ones, and each of these changes the result around it.
    """
    model = network.model
    if isinstance(network, ExportedRefiner):
        image = torch.from_numpy(picture.transpose(2, 0, 1)[None])
        expected = model.refine(image, torch.from_numpy(mask)[None]).mask
        return Agreement(relative(outputs[0], expected.numpy()))
    sample = pipeline(dict(img=picture))
    if not isinstance(network, ExportedSparseRefine):
        stored, = model.test_step(pseudo_collate([sample]))
        if network.include_argmax:
            return Agreement(float((outputs[0] != stored.pred_sem_seg.data.numpy()).mean()))
        return Agreement(relative(outputs[0], stored.seg_logits.data.numpy()))
    batch = model.data_preprocessor(pseudo_collate([sample]))
    height, width = picture.shape[:2]
    refinable = model.select(batch['inputs'], batch['data_samples'])
    by_model, by_file = refinable.selection.mask, torch.from_numpy(outputs[1])
    mask_of_file = torch.zeros_like(by_model)
    mask_of_file[:, :height, :width] = by_file
    pixels, logits = model.gather(batch['inputs'], mask_of_file, refinable.low)
    expected = network.result(refinable._replace(pixels=pixels, logits=logits))
    expected = expected[..., :height, :width].numpy()
    difference = (float((outputs[0] != expected).mean()) if network.include_argmax else
                  relative(outputs[0], expected, 1 - OUTLIERS))
    return Agreement(difference, float(by_file.float().mean()),
                     float((mask_of_file != by_model).float().mean()))


def relative(found: np.ndarray, expected: np.ndarray, quantile: float = 1.0) -> float:
    """Difference of scores by the largest score; of all but the last ``1 - quantile``."""
    differences = np.abs(found - expected)
    return float(np.quantile(differences, quantile) / np.abs(expected).max())
