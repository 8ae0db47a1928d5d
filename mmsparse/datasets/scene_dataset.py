"""Scenes as an mmseg dataset, and as files that any stock component can read."""
from __future__ import annotations

import re
from typing import Any

import cv2
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset

from mmsparse.registry import DATASETS

from .scene_objects import CLASSES
from .scenes import PALETTE, SMALL_CLASSES, check_scene, render_label, render_scene

_URI = re.compile(r'scene://seed(\d+)/(\d+)x(\d+)/(\d+)(_label)?\.png')


def scene_list(name: str, length: int, size: tuple[int, int], seed: int, first_index: int
               ) -> list[tuple[str, dict]]:
    """Path and scene (arguments of ``render_scene``) of every scene of a dataset.

    Args:
        name: of the dataset, for the error.
        length, size, seed, first_index: of the dataset.

    Raises:
        ValueError: a number is out of range.
    """
    if not isinstance(length, int) or length < 1:
        raise ValueError(f'{name}.length must be a positive integer, got {length!r}')
    height, width = size = check_scene(first_index, size, seed)
    return [(f'scene://seed{seed}/{height}x{width}/{index:06d}.png',
             dict(index=index, size=size, seed=seed))
            for index in range(first_index, first_index + length)]


@DATASETS.register_module()
class SceneDataset(BaseSegDataset):
    """Scenes ``first_index ... first_index + length - 1`` of one seed.

    ``mmsparse.RenderScene`` loads them. The paths in the data list (``scene://...``) can also be
    read by stock transforms and hooks: a file backend renders and encodes them.

    Args:
        length: number of scenes.
        size: ``(H, W)`` of every scene in pixels.
        seed: which series of scenes; training and test sets take different ones.
        first_index: number of the first scene.
        **kwargs: ``pipeline``, ``test_mode``, ``metainfo``, ``indices`` ... of mmseg's
            ``BaseSegDataset``.

    Raises:
        ValueError: a number is out of range.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE, small_classes=SMALL_CLASSES)

    def __init__(self,
                 *,
                 length: int,
                 size: tuple[int, int],
                 seed: int = 0,
                 first_index: int = 0,
                 **kwargs: Any) -> None:
        self.scenes = scene_list(type(self).__name__, length, size, seed, first_index)
        super().__init__(img_suffix='.png', **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene, with the keys of mmseg's datasets and ``scene``."""
        return [
            dict(
                img_path=path,
                seg_map_path=path.replace('.png', '_label.png'),
                scene=scene,
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[])
            for path, scene in self.scenes]


@register_backend('mmsparse_scene', prefixes='scene', force=True)
class SceneBackend(BaseStorageBackend):
    """Read ``scene://seed{seed}/{H}x{W}/{index}[_label].png`` as if it were a file.

    For what opens images by path, such as mmseg's visualization hook. Training renders directly
    (``mmsparse.RenderScene``): encoding and decoding cost more than rendering.
    """

    def get(self, filepath: str) -> bytes:
        """The PNG file as bytes.

        Raises:
            FileNotFoundError: the path names no scene.
        """
        match = _URI.fullmatch(str(filepath))
        if not match:
            raise FileNotFoundError(
                f'{filepath} names no scene: scene://seed0/1024x2048/000000.png does, its label '
                'is scene://seed0/1024x2048/000000_label.png')
        seed, height, width, index = (int(g) for g in match.groups()[:4])
        scene = index, (height, width), seed
        pixels = render_label(*scene) if match[5] else render_scene(*scene)[0]
        return cv2.imencode('.png', pixels)[1].tobytes()

    def get_text(self, filepath: str) -> str:
        """Scenes hold no text."""
        raise TypeError(f'{filepath} is a picture, not a text')
