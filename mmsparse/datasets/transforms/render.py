"""Render a scene in place of reading files."""
from __future__ import annotations

from collections import OrderedDict

import numpy as np
from mmcv.transforms import BaseTransform

from mmsparse.registry import TRANSFORMS

from ..scenes import render_scene


@TRANSFORMS.register_module()
class RenderScene(BaseTransform):
    """Put the picture and the label of a scene where mmseg's loading transforms put theirs.

    For training: it can keep scenes in memory. In testing mmseg's own ``LoadImageFromFile`` and
    ``LoadAnnotations`` read scenes too (see :class:`mmsparse.datasets.scene_dataset.SceneBackend`).

    Required keys: ``scene``; for labels ``label_map``, ``reduce_zero_label``, ``seg_fields`` (from
    ``mmsparse.SceneDataset``; ``mmsparse.SceneInstanceDataset`` has none, and objects instead, for
    mmdet's ``LoadAnnotations``). Added keys: ``img`` (uint8 BGR ``[H, W, 3]``), ``img_shape``,
    ``ori_shape``; with the keys for labels ``gt_seg_map`` (uint8 ``[H, W]``).

    Args:
        cache: keep this many rendered scenes in the memory of each worker (8 MB each at
            1024 x 2048), the latest ones. Worth it where a dataset is passed over many times.

    Raises:
        ValueError: ``cache`` is negative.
    """

    def __init__(self, *, cache: int = 0) -> None:
        if cache < 0:
            raise ValueError(f'RenderScene.cache must be >= 0 scenes, got {cache}')
        self.cache = cache
        self._cached: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def transform(self, results: dict) -> dict:
        """Add the keys above."""
        if 'scene' not in results:
            raise KeyError("RenderScene needs the key 'scene', which mmsparse.SceneDataset "
                           f'provides; got {sorted(results)}')
        image, label = self._render(results['scene'])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        if 'seg_fields' not in results:
            return results
        if results['reduce_zero_label']:  # class 0 becomes 255, the others move down
            label = label - 1  # uint8 wraps around
        if results['label_map'] is not None:
            label = _relabel(label, results['label_map'])
        results['gt_seg_map'] = label
        results['seg_fields'].append('gt_seg_map')
        return results

    def _render(self, scene: dict) -> tuple[np.ndarray, np.ndarray]:
        """The scene, from memory if it is there; the caller may write to the arrays."""
        if not self.cache:
            return render_scene(**scene)
        key = tuple(sorted(scene.items()))
        if key not in self._cached:
            self._cached[key] = render_scene(**scene)
            if len(self._cached) > self.cache:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        image, label = self._cached[key]
        return image.copy(), label.copy()

    def __repr__(self) -> str:
        return f'RenderScene(cache={self.cache})'


def _relabel(label: np.ndarray, label_map: dict[int, int]) -> np.ndarray:
    """Replace old by new class numbers, all at once."""
    new = label.copy()
    for old, number in label_map.items():
        new[label == old] = number
    return new
