"""The masks of a COCO data set, refined by CRM.

Letters: ``H, W`` size of a picture.
"""
from __future__ import annotations

import glob
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine import dist
from pycocotools import mask as coco

from mmsparse.models.crm import CRMRefiner
from mmsparse.models.crm.objects import Job, box_of, crop_around, refine_crops
from mmsparse.models.crm.wrappers import EXPAND
from mmsparse.pictures import AS_STORED, read_image
from mmsparse.rle import Patch, decode_mask, decode_patch, encode_patch

from .whole_files import write_whole


class CocoRefinement(NamedTuple):
    """What :func:`refine_coco` has done.

    Attributes:
        refined: number of masks that were refined.
        kept: number of annotations that stay as they are: crowds, small masks, and those without.
        failed: for each picture or annotation that failed, and stays as it is, a line.
    """

    refined: int
    kept: int
    failed: list[str]


def refine_coco(refiner: CRMRefiner, images: Path, annotations: Path, out: Path, *,
                setting: str = '', on_image: Callable[[int, int], object] = lambda done, total: None
                ) -> CocoRefinement:
    """Refine every mask of a COCO JSON and write the whole JSON anew.

    An annotation keeps all its keys; ``segmentation`` becomes a run-length code, ``bbox`` and
    ``area`` follow it. Crowds, masks smaller than the refiner's ``min_area`` and those that would
    vanish stay as they are. Each object is refined in a crop grown by a quarter, crops of one size
    together; the refiner's ``max_bytes`` bounds the memory.

    What is finished is noted, picture by picture, in a journal beside ``out`` (``OUT.journal-0``),
    so that the same call goes on after an interruption; the JSON appears when all are done. Where
    ``torch.distributed`` runs, every process calls this and does its share.

    Args:
        refiner: from :func:`mmsparse.apis.init_model`.
        images: folder that the JSON's ``file_name`` are in.
        annotations: the JSON.
        out: where the refined one goes; written over if it is there.
        setting: which model this is, of which a journal has to be to go on from it.
        on_image: called after each picture with how many are done, and of how many.

    Raises:
        OSError: a JSON cannot be read or written.
        ValueError: ``annotations`` is no COCO JSON, or the journal that of another work.
    """
    content = annotations.read_bytes()
    data = parse(content, annotations)
    of_image: dict[Any, list[dict]] = defaultdict(list)
    for annotation in data['annotations']:
        of_image[annotation['image_id']].append(annotation)
    rank, world_size = dist.get_dist_info()
    journal = Journal(out, hashlib.sha256(content + setting.encode()).hexdigest(), rank)
    refined = journal.read()
    failed = []
    todo = list(enumerate(image for image in data['images'] if of_image[image['id']]))
    share = todo[rank::world_size]
    with journal:
        for done, (place, image) in enumerate(share, 1):
            if image['id'] not in journal.images:
                try:
                    found, wrong = refine_image(refiner, images, image, of_image[image['id']])
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    found, wrong = {}, [str(error)]
                failed += [(place, f'{images / image["file_name"]}: {line}') for line in wrong]
                refined |= found
                if not wrong:
                    journal.write(image['id'], found)
            on_image(done, len(share))
    everything = dist.all_gather_object((refined, failed))
    refined = {key: new for part, _ in everything for key, new in part.items()}
    failed = sorted(line for _, part in everything for line in part)
    if rank == 0:
        data['annotations'] = [annotation | refined.get(annotation['id'], {})
                               for annotation in data['annotations']]
        write_whole(out, json.dumps(data).encode())
        if not failed:
            journal.delete()
    return CocoRefinement(len(refined), len(data['annotations']) - len(refined),
                          [line for _, line in failed])


def parse(content: bytes, name: Path) -> dict[str, Any]:
    """A COCO JSON whose pictures and annotations have what is needed of them.

    Raises:
        ValueError: it has not.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{name} is no JSON: {error}') from error
    if not isinstance(data, dict):
        raise ValueError(f'{name} is no COCO JSON: it must hold images and annotations')
    for key, needed in (('images', {'id', 'file_name'}), ('annotations', {'id', 'image_id'})):
        entries = data.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ValueError(f'{name} is no COCO JSON: {key} must be a list of objects')
        for entry in entries:
            if missing := needed - entry.keys():
                raise ValueError(f'{name}: an entry of {key} has no {", ".join(sorted(missing))}: '
                                 f'{json.dumps(entry):.80}')
        ids = [entry['id'] for entry in entries]
        if len(set(ids)) < len(ids):
            raise ValueError(f'{name}: ids of {key} must be unique')
    known = {image['id'] for image in data['images']}
    if lost := [entry['id'] for entry in data['annotations'] if entry['image_id'] not in known]:
        raise ValueError(f'{name}: {len(lost)} annotations are of images that it does not have, '
                         f'the first is {lost[0]!r}')
    return data


def refine_image(refiner: CRMRefiner, folder: Path, image: dict, annotations: Sequence[dict]
                 ) -> tuple[dict[Any, dict], list[str]]:
    """The new keys of a picture's annotations, by their id, and what is wrong with others.

    Raises:
        OSError, ValueError: the picture cannot be read, or has another size than the JSON says.
    """
    pixels = read_image(folder / image['file_name'])
    size = pixels.shape[0], pixels.shape[1]
    said = image.get('height', size[0]), image.get('width', size[1])
    if said != size:
        hint = f'; {AS_STORED}' if said == size[::-1] else ''
        raise ValueError(f'the picture has {list(size)} pixels, the JSON says {list(said)}{hint}')
    wrong = []
    masks: list[tuple[dict, Patch]] = []
    for annotation in annotations:
        try:
            patch = None if annotation.get('iscrowd') else patch_of(annotation, size)
        except ValueError as error:
            wrong.append(f'annotation {annotation["id"]!r}: {error}')
            continue
        if patch is not None and patch.mask.sum() >= max(refiner.test_cfg.min_area, 1):
            masks.append((annotation, patch))
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    refined = {}
    for job, p in refine_crops(refiner, tensor, jobs(masks, size)):
        mask = p.numpy() > 0.5
        if mask.any():
            code = encode_patch(Patch(mask, job.crop.top, job.crop.left), size)
            refined[masks[job.key][0]['id']] = dict(
                segmentation=dict(size=list(size), counts=code['counts'].decode()),
                bbox=coco.toBbox(code).tolist(), area=float(coco.area(code)))
    return refined, wrong


def jobs(masks: Sequence[tuple[dict, Patch]], size: tuple[int, int]) -> Iterator[Job]:
    """What to refine; the key of a job is the mask's place in the sequence."""
    for key, (_, patch) in enumerate(masks):
        inside = box_of(patch.mask.any(1), patch.mask.any(0))
        box = inside.moved(patch.top, patch.left)
        crop = crop_around(box, size, EXPAND)
        mask = torch.zeros(crop.size)
        box.relative_to(crop).of(mask).copy_(torch.from_numpy(inside.of(patch.mask)))
        yield Job(key, crop, mask)


def patch_of(annotation: dict, size: tuple[int, int]) -> Patch | None:
    """The mask of an annotation where it is not background; ``None`` if it has none.

    Args:
        annotation: its ``segmentation`` is a run-length code or a list of polygons.
        size: ``(H, W)``.

    Raises:
        ValueError: it is neither, or of another size.
    """
    segmentation = annotation.get('segmentation')
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if not {'size', 'counts'} <= segmentation.keys() or segmentation['size'] != list(size):
            raise ValueError(f'its run-length code is of {segmentation.get("size")} pixels, the '
                             f'picture has {list(size)}')
        if not isinstance(segmentation['counts'], str):
            return Patch(decode_mask(segmentation), 0, 0)
        return decode_patch(segmentation)
    for polygon in segmentation if isinstance(segmentation, list) else [segmentation]:
        if not (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(
                isinstance(n, (int, float)) and np.isfinite(n) for n in polygon)):
            raise ValueError('a polygon is a list of three or more x, y in turn, got '
                             f'{json.dumps(polygon):.80}')
    return decode_patch(coco.merge(coco.frPyObjects(segmentation, *size)))


class Journal:
    """The refined annotations of finished pictures, a line of JSON for each.

    Every process writes its own and reads those of all, which an earlier run may have left.

    Args:
        out: file beside which they lie.
        work: what they are about, their first line.
        rank: number of the process.

    Attributes:
        images: ids of the pictures that are finished.
    """

    def __init__(self, out: Path, work: str, rank: int) -> None:
        self.out = out
        self.path = out.with_name(f'{out.name}.journal-{rank}')
        self.work = work
        self.images: set[Any] = set()

    def all(self) -> list[Path]:
        """Those of all processes."""
        return sorted(self.out.parent.glob(f'{glob.escape(self.out.name)}.journal-*'))

    def read(self) -> dict[Any, dict]:
        """The new keys of annotations by their id; a last line that is cut off does not count.

        Raises:
            ValueError: one is about something else.
        """
        refined: dict[Any, dict] = {}
        for path in self.all():
            first, *lines = path.read_bytes().split(b'\n')
            if first.decode(errors='replace') != self.work and lines:
                raise ValueError(f'{path} is left of other annotations or another model: go on '
                                 'with those, or delete it')
            for line in lines[:-1]:
                image, annotations = json.loads(line)
                self.images.add(image)
                refined |= dict(annotations)
        return refined

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open('a+b')
        self._file.seek(0)
        whole = self._file.read().rfind(b'\n') + 1
        self._file.truncate(whole)
        if not whole:
            self._add(self.work.encode())
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, image: Any, refined: dict[Any, dict]) -> None:
        """Note a finished picture."""
        self._add(json.dumps([image, list(refined.items())]).encode())

    def _add(self, line: bytes) -> None:
        self._file.write(line + b'\n')
        self._file.flush()

    def delete(self) -> None:
        """Those of all processes: the work is done."""
        for path in self.all():
            path.unlink()
