"""A model from a config, its opinion about images and whole folders of them, and refined masks.

Letters: ``H, W`` size of an image in pixels.
"""
from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from mmseg.models.segmentors import BaseSegmentor
from rich.progress import Progress
from torch import nn

from mmsparse.engine import progress_display
from mmsparse.engine.formats import FORMATS
from mmsparse.engine.fusion import fuse_for_inference
from mmsparse.engine.inputs import Input, InputReader, Picture, find_inputs
from mmsparse.engine.loading import load_model
from mmsparse.engine.output_folder import OutputFolder
from mmsparse.engine.pipeline import follows_exif, preparation, tested_dataset
from mmsparse.engine.prediction import Prediction, WrongModelError
from mmsparse.engine.raster.outputs import SUFFIXES, goes_by_windows, label_raster
from mmsparse.engine.raster.prediction import WINDOW
from mmsparse.masks import check_mask, read_mask
from mmsparse.models.crm.refiner import CRMRefiner
from mmsparse.pictures import AS_STORED, read_image

Image = str | Path | np.ndarray


def init_model(config: str | Path | Config,
               checkpoint: str | Path | None = None,
               device: str | None = None,
               cfg_options: dict | None = None,
               *,
               backend: str = 'torch',
               dtype: str = 'float32') -> BaseModel:
    """A segmentor or detector for inference: batch norms are folded, images laid out channels last.

    The same results as the stock runner's, in less time; to train a model or to save its weights,
    build it by the runner.

    Args:
        config: a file, ``'mmsparse::sparserefine/NAME.py'`` (or ``mmseg::``) of an installed
            package, ``'mmsparse://NAME'`` of the zoo, or a config, which stays as it is.
        checkpoint: as for :func:`~mmsparse.engine.loading.load_model`.
        device: such as ``'cuda:0'``; ``None`` takes the process's own GPU, which is the first one
            unless something has chosen another, else the CPU.
        cfg_options: settings that override those of the config, by dotted name.
        backend, dtype: what computes, and in which precision:
            :func:`~mmsparse.engine.fusion.fuse_for_inference`.

    Returns:
        The model, with ``cfg`` and ``dataset_meta`` (names and colors of the classes: the
        checkpoint's, without one those of the config's test dataset).

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        CheckpointError: the checkpoint cannot be read, would run code, or does not fit the config
            (:func:`mmsparse.checkpoint.load_weights`).
        ValueError: neither the checkpoint nor a test set of the config says what the classes are;
            backend or dtype are unknown, or not for this model and device.
    """
    model = load_model(config, checkpoint, device or (
        f'cuda:{torch.cuda.current_device()}' if torch.cuda.is_available() else 'cpu'), cfg_options)
    if not model.dataset_meta:
        dataset = tested_dataset(model.cfg)
        with DATASETS.switch_scope_and_registry(None) as registry:  # mmseg's or mmdet's
            cls = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        model.dataset_meta = getattr(cls, 'METAINFO', {}) | dict(dataset.get('metainfo') or {})
    return fuse_for_inference(model, backend=backend, dtype=dtype)


def inference(model: BaseModel, images: Image | Sequence[Image]) -> Any:
    """Label images of any sizes, one after the other.

    The test pipeline of the model's config is used without what loads pictures and labels. Files
    are read as stored; where the pipeline turns them as EXIF says, as mmdet's do, so are these.

    Args:
        model: from :func:`init_model`.
        images: one image or a list: path, URL, or uint8 BGR ``[H, W, 3]``.

    Returns:
        One sample for one image, else a list: ``SegDataSample`` of a segmentor, ``DetDataSample``
        of a detector. A SparseRefine sample holds ``pred_sem_seg``, ``low_res_sem_seg``,
        ``selected``, and with ``model.test_cfg.keep_score=True`` in the config ``selection_score``.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no image, an array has another shape, or the model's pipeline loads
            something else than color pictures.
        TypeError: an image is neither path nor uint8 array.
    """
    init_default_scope(model.cfg.get('default_scope', 'mmseg'))
    pipeline = Compose([
        dict(type='LoadImageFromNDArray'),
        *preparation(tested_dataset(model.cfg))])
    if isinstance(images, Sequence) and not isinstance(images, str):
        return [_infer(model, pipeline, image) for image in images]
    return _infer(model, pipeline, images)


def _infer(model: BaseModel, pipeline: Compose, image: Image) -> BaseDataElement:
    picture = check_image(image) if isinstance(image, np.ndarray) else read_image(
        image, upright=follows_exif(model.cfg))
    packed = pipeline(dict(img=picture))
    sample = packed['data_samples']
    sample.set_field(picture, 'ori_img', field_type='metainfo')  # RefinedSegmentor looks at it
    if not isinstance(image, np.ndarray):
        sample.set_metainfo(dict(img_path=str(image)))
    with torch.no_grad():
        sample, = model.test_step(pseudo_collate([packed]))
    sample.pop('ori_img', None)
    return sample


class Outcome(NamedTuple):
    """What :func:`predict` has done, in all processes together.

    Attributes:
        written: number of pictures that were labeled.
        skipped: number of those whose files were there.
        failed: for each picture that failed a line with its file, in the order of the inputs.
        stopped: the output folder is full or can no longer be written to; pictures are left over.
        turned: files with an EXIF orientation.
        documents: files of all pictures that were written.
    """

    written: int
    skipped: int
    failed: list[str]
    stopped: bool
    turned: list[Path]
    documents: list[Path]


def predict(model: BaseModel,
            inputs: str | Path | Sequence[str | Path],
            out: str | Path,
            *,
            formats: Sequence[str] = (),
            force: bool = False,
            score_thr: float = 0.3,
            upright: bool = False,
            white: float | None = None,
            bands: Sequence[int] | None = None,
            window: int = WINDOW,
            halo: int | None = None,
            show_progress: bool = False) -> Outcome:
    """Label files, folders of them, and videos, and write what is found into a folder.

    Names below the folder of all inputs are kept: ``street/1.jpg`` becomes
    ``OUT/labels/street/1.png``. What is there is left alone, so that a second call goes on where
    the first one ended; files are whole or not there. Where ``torch.distributed`` runs, every
    process calls this and does its share; the files are the same as those of one process.

    A segmentor labels TIFFs that are georeferenced or larger than 64 megapixels by windows
    (:func:`~mmsparse.engine.predict_raster`), where ``formats`` are ``'labels'``, of which
    they have a GeoTIFF, and ``'geojson'`` alone.

    Args:
        model: from :func:`init_model`.
        inputs, out: as of :func:`~mmsparse.engine.inputs.find_inputs`.
        formats: keys of :data:`mmsparse.engine.formats.FORMATS`; by default ``'labels'`` of a
            segmentor, ``'coco'`` of a detector.
        force: write over files that are there.
        score_thr: objects of a detector with a lower score are left out.
        upright: turn pictures as their EXIF orientation says; else it is done where the model's
            test pipeline does it, as mmdet's do.
        white: which value is white in pictures of more than 8 bits; without it they fail.
        bands, window, halo: of pictures that are labeled by windows, as of ``predict_raster``.
        show_progress: show a bar on the terminal.

    Returns:
        What was done; a picture that cannot be read or labeled does not stop the others.

    Raises:
        FileNotFoundError: an input is not there, or matches nothing.
        OSError: the output folder cannot be written to.
        ValueError: ``formats`` are unknown or not for this model, or an input or ``out`` is
            refused by ``find_inputs``.
    """
    if not formats:
        formats = ('labels' if isinstance(model, BaseSegmentor) else 'coco',)
    if unknown := sorted(set(formats) - FORMATS.keys()):
        raise ValueError(f'formats must be of {tuple(FORMATS)}, got {unknown}')
    named = [inputs] if isinstance(inputs, (str, Path)) else inputs
    found = find_inputs(named, Path(out))
    folder = OutputFolder(out, {key: FORMATS[key](model) for key in formats}, force=force)
    rank, world_size = dist.get_dist_info()
    rasters = []
    if isinstance(model, BaseSegmentor) and set(formats) <= SUFFIXES.keys():
        rasters = [one for one in found if goes_by_windows(one.file)]
        found = [one for one in found if one not in rasters]
    reader = InputReader(found, upright or follows_exif(model.cfg), white, rank, world_size)
    work = _Share(
        model, folder, reader, score_thr, list(enumerate(rasters, len(found)))[rank::world_size],
        dict(white=white, bands=bands, window=window, halo=halo))
    with progress_display(disable=not show_progress or rank > 0) as bar:
        work.run(bar)
    everything = dist.all_gather_object((work.written, work.skipped, work.failed, work.stopped,
                                         reader.turned))
    written, skipped, failed, stopped, turned = zip(*everything, strict=True)
    outcome = Outcome(sum(written), sum(skipped), [line for _, line in sorted(sum(failed, []))],
                      any(stopped), sum(turned, []), [])
    if rank == 0 and not outcome.stopped:
        outcome.documents.extend(folder.join())
    return outcome


# The folder as a whole cannot be written to any more, whatever the picture.
NO_FOLDER = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class _Share:
    """What one process does of :func:`predict`."""

    model: BaseModel
    folder: OutputFolder
    reader: InputReader
    score_thr: float
    rasters: Sequence[tuple[int, Input]]  # each with its place behind the pictures
    options: Mapping[str, Any]  # of predict_raster
    written: int = 0
    skipped: int = 0
    failed: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    stopped: bool = False

    def run(self, bar: Progress) -> None:
        """Label all pictures of the share."""
        task = bar.add_task(
            'Predict', total=self.reader.announced() + len(self.rasters), note='')
        ahead = self.reader.read_ahead(lambda picture: bool(self.folder.missing(picture.name)))
        with closing(ahead):
            for picture, image in ahead:
                self.attempt(picture.file, picture.place, partial(self.label, picture, image))
                speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
                bar.update(task, advance=1, note=f'{speed:.2f} a second' if speed else '')
                if self.stopped:
                    return
        for place, raster in self.rasters:
            def show(done: int, total: int, name: Path = raster.name) -> None:
                bar.update(task, note=f'{name}: window {done} of {total}')

            self.attempt(raster.file, (place, 0), partial(self.label_raster, raster, show))
            bar.update(task, advance=1, note='')
            if self.stopped:
                return

    def attempt(self, file: Path, place: tuple[int, int], label: Callable[[], None]) -> None:
        """Label a picture, and note it if that fails."""
        try:
            label()
        except WrongModelError:
            raise
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            named = str(file) in str(error)
            self.failed.append((place, str(error) if named else f'{file}: {error}'))
            self.stopped = isinstance(error, OSError) and error.errno in NO_FOLDER

    def label_raster(self, raster: Input, show: Callable[[int, int], None]) -> None:
        """Label one picture by windows, unless its results are there."""
        done = label_raster(
            self.model, raster.file, raster.name, self.folder, self.options, show)
        self.written += done
        self.skipped += not done

    def label(self, picture: Picture, image: np.ndarray | Exception | None) -> None:
        """Label one picture and write what is found; raise the error of reading."""
        if image is None:
            self.skipped += 1
            return
        if isinstance(image, Exception):
            raise image
        sample = inference(self.model, image)
        sample.pop('seg_logits', None)  # K full-size maps
        if 'pred_instances' in sample:
            sample.pred_instances = sample.pred_instances[
                sample.pred_instances.scores >= self.score_thr]
        self.folder.write(Prediction(picture.file, picture.name, image, sample.cpu()))
        self.written += 1


def refine_mask(image: Image, mask: Image, model: nn.Module) -> np.ndarray:
    """Refine one coarse mask of one object.

    Image and mask stay in main memory; only tiles of them travel to the model.

    Args:
        image: path, URL, or uint8 BGR ``[H, W, 3]``.
        mask: path of :func:`mmsparse.masks.read_mask`, or an array ``[H, W]``: bool, uint8 from 0
            to 255, or probabilities.
        model: a :class:`~mmsparse.models.crm.CRMRefiner`, from :func:`init_model`.

    Returns:
        Probabilities, float32 ``[H, W]``; more than 0.5 is the object.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file or array is no image or mask, or their sizes differ.
        TypeError: ``model`` refines no masks.
    """
    if not isinstance(model, CRMRefiner):
        raise TypeError(f'refine_mask needs a CRMRefiner, got {type(model).__name__}')
    image = check_image(image) if isinstance(image, np.ndarray) else read_image(image)
    mask = check_mask(mask) if isinstance(mask, np.ndarray) else read_mask(mask)
    if image.shape[:2] != mask.shape:
        hint = f'; {AS_STORED}' if image.shape[1::-1] == mask.shape else ''
        raise ValueError(f'the image has {list(image.shape[:2])} pixels, the mask '
                         f'{list(mask.shape)}{hint}')
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return model.refine(pixels[None], torch.from_numpy(mask)[None]).mask[0].numpy()


def check_image(image: np.ndarray) -> np.ndarray:
    """The array, if it can be an image; raises as :func:`inference`."""
    if image.dtype != np.uint8:
        raise TypeError(f'an image array must be uint8 (0 to 255), got {image.dtype}')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'an image array must be [H, W, 3], got {list(image.shape)}')
    return image
