"""Scenes as an mmdet dataset: their countable things with pixel-exact masks."""
from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset

from mmsparse.registry import DATASETS
from mmsparse.rle import Patch, encode_patch

from .scene_dataset import scene_list
from .scene_objects import CLASSES, OBJECTS
from .scenes import PALETTE, render_instances


@DATASETS.register_module()
class SceneInstanceDataset(BaseDetDataset):
    """Objects of scenes ``first_index ... first_index + length - 1`` of one seed.

    Every car, pedestrian, traffic sign and traffic light, as far as it can be seen: masks are
    disjoint, boxes tight. Pictures are those of :class:`.scene_dataset.SceneDataset`, loaded by
    ``mmsparse.RenderScene`` or mmdet's ``LoadImageFromFile``, objects by mmdet's
    ``LoadAnnotations``. No file is needed to evaluate: ``mmsparse.BoundaryCocoMetric`` and
    mmdet's ``CocoMetric`` take the truth from the key ``instances``, if ``PackDetInputs`` has it
    among its ``meta_keys``.

    Args:
        length: number of scenes.
        size: ``(H, W)`` of every scene in pixels.
        seed: which series of scenes; training and test sets take different ones.
        first_index: number of the first scene.
        min_area: objects of fewer visible pixels are marked to be ignored: not learned, and
            neither right nor wrong to find, as COCO's crowds.
        **kwargs: ``pipeline``, ``test_mode``, ``metainfo``, ``filter_cfg`` (of its keys
            ``filter_empty_gt``) ... of mmdet's ``BaseDetDataset``.

    Raises:
        ValueError: a number is out of range, a class is not one of these, or ``filter_cfg`` has
            another key.
    """

    METAINFO = dict(
        classes=tuple(CLASSES[k] for k in OBJECTS), palette=[tuple(PALETTE[k]) for k in OBJECTS])

    def __init__(self,
                 *,
                 length: int,
                 size: tuple[int, int],
                 seed: int = 0,
                 first_index: int = 0,
                 min_area: int = 100,
                 **kwargs: Any) -> None:
        self.scenes = scene_list(type(self).__name__, length, size, seed, first_index)
        if not isinstance(min_area, int) or min_area < 1:
            raise ValueError('SceneInstanceDataset.min_area must be a positive integer in pixels, '
                             f'got {min_area!r}')
        unknown = (kwargs.get('filter_cfg') or {}).keys() - {'filter_empty_gt'}
        if unknown:
            raise ValueError("SceneInstanceDataset.filter_cfg takes 'filter_empty_gt', got "
                             f'{sorted(unknown)[0]!r}')
        self.min_area = min_area
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene, with the keys of mmdet's datasets and ``scene``."""
        classes = self.metainfo['classes']
        unknown = [name for name in classes if name not in self.METAINFO['classes']]
        if unknown:
            raise ValueError(f'SceneInstanceDataset has the classes {self.METAINFO["classes"]}, '
                             f'got {unknown[0]!r}')
        numbers = {CLASSES.index(name): k for k, name in enumerate(classes)}
        return [
            dict(
                img_path=path,
                img_id=scene['index'],
                height=scene['size'][0],
                width=scene['size'][1],
                scene=scene,
                instances=self._objects(scene, numbers))
            for path, scene in self.scenes]

    def _objects(self, scene: dict, numbers: dict[int, int]) -> list[dict]:
        """Boxes, masks and labels of one scene as of mmdet's ``CocoDataset``."""
        ids, labels = render_instances(**scene)
        objects = []
        for number, label in enumerate(labels.tolist(), start=1):
            if label not in numbers:
                continue
            mask = ids == number
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            top, bottom = int(rows[0]), int(rows[-1]) + 1
            left, right = int(columns[0]), int(columns[-1]) + 1
            patch = Patch(mask[top:bottom, left:right], top, left)
            code = encode_patch(patch, scene['size'])
            objects.append(dict(
                bbox=[float(v) for v in (left, top, right, bottom)],
                bbox_label=numbers[label],
                ignore_flag=int(patch.mask.sum() < self.min_area),
                mask=dict(code, counts=code['counts'].decode())))
        return objects

    def filter_data(self) -> list[dict]:
        """Without scenes in which all objects are ignored, if ``filter_empty_gt`` asks for it."""
        if self.test_mode or not (self.filter_cfg or {}).get('filter_empty_gt', False):
            return self.data_list
        return [info for info in self.data_list
                if not all(thing['ignore_flag'] for thing in info['instances'])]
