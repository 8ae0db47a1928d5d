"""Low-resolution logits of clean images, augmented together with image and label.

The data flow of SparseRefine's released code (ECCV 2024): the segmentor never sees augmented
pixels. There logits ``[K, H, W]`` are scaled, cropped and flipped like a label map; here the number
of the low-resolution pixel that each pixel belongs to is, one channel instead of ``K``, with the
same result. Letters: ``H, W`` image size, ``h, w`` low-resolution size, ``K`` classes.
"""
from __future__ import annotations

import os.path as osp

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.fileio import exists, get
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs

from mmsparse.masks import decode_array
from mmsparse.registry import TRANSFORMS
from mmsparse.sparse import logits_of

from .resizing import resize_labels

INDEX = 'low_res_index'


def track_low_res(results: dict, size: tuple[int, int], *, aligned: bool) -> None:
    """Add the segmentation field that says which low-resolution pixel each pixel belongs to.

    Pixel ``i`` of ``h * w`` is stored as ``-1 - i``, so that padding (stock transforms pad such
    fields with a number >= 0) is told from every pixel. float32, which OpenCV warps and which
    counts to 2**24.

    Args:
        results: of an image without augmentation.
        size: ``(h, w)``.
        aligned: a pixel belongs to the low-resolution pixel that its center falls into, else to
            that of its upper left corner, as OpenCV enlarges. The same where ``h`` and ``w`` divide
            ``H`` and ``W``; else the latter moves the map by half a pixel.
    """
    if results.get('scale_factor', 1.0) not in (1.0, (1.0, 1.0)) or results.get('flip'):
        raise ValueError('the image is already resized or flipped: KeepLowRes and LoadLowResLogits '
                         'stand before every augmentation')
    h, w = size
    if h * w > 2**24:
        raise ValueError(f'a low resolution of {h} x {w} has more than 2**24 pixels')
    index = -1 - np.arange(h * w, dtype=np.float32).reshape(h, w)
    height, width = results['img'].shape[:2]
    results[INDEX] = resize_labels(index, (height, width)) if aligned else cv2.resize(
        index, (width, height), interpolation=cv2.INTER_NEAREST)
    results.setdefault('seg_fields', []).append(INDEX)


@TRANSFORMS.register_module()
class KeepLowRes(BaseTransform):
    """Keep a downsampled copy of the clean image for the segmentor.

    Stands after loading and before any augmentation; :class:`PackRefineInputs` passes it on. For
    ``joint_aug='post_lr'`` of ``mmsparse.SparseRefineSegmentor``.

    Args:
        scale: ``(w, h)`` of the copy in pixels, as in mmcv's ``Resize``.
    """

    def __init__(self, *, scale: tuple[int, int]) -> None:
        if len(scale) != 2 or min(scale) < 1:
            raise ValueError(f'KeepLowRes.scale must be (w, h) in pixels, got {scale!r}')
        self.scale = scale[0], scale[1]

    def transform(self, results: dict) -> dict:
        """Add ``low_res_img`` (float32 ``[h, w, 3]``) and the field ``low_res_index``."""
        # float: rounding to bytes would be an error that the paper's data flow does not have
        image = torch.from_numpy(results['img']).permute(2, 0, 1)[None].float()
        low = torch.nn.functional.interpolate(
            image, size=self.scale[::-1], mode='bilinear', align_corners=False)
        results['low_res_img'] = low[0]
        track_low_res(results, self.scale[::-1], aligned=True)
        return results


@TRANSFORMS.register_module(name=['LoadLowResLogits', 'LoadLRLogits'])
class LoadLowResLogits(BaseTransform):
    """Load low-resolution scores from a file per image, in place of running the segmentor.

    In training and testing. The file is named like the image: ``{logits_root}/{image name without
    suffix}.npy``, ``[K, h, w]``, of any float type.

    Args:
        logits_root: folder of the files.
        probabilities: the files hold class scores of a Mask2Former, not logits: their logarithm,
            clipped at 1e-10, serves as logit.
        aligned: enlarge them so that they stay where the image is, as the model does; ``False``:
            as the paper's code does, which moves them by half a pixel where the sizes do not
            divide.
        backend_args: of mmengine's file backends.
    """

    def __init__(self, *, logits_root: str, probabilities: bool = False, aligned: bool = True,
                 backend_args: dict | None = None) -> None:
        self.logits_root = logits_root
        self.probabilities = probabilities
        self.aligned = aligned
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add ``low_res_logits`` (float32 ``[K, h, w]``) and the field ``low_res_index``.

        Raises:
            FileNotFoundError: there is no file for the image.
            ValueError: it does not hold ``[K, h, w]`` floats.
        """
        name = osp.splitext(osp.basename(results['img_path']))[0]
        path = osp.join(self.logits_root, f'{name}.npy')
        if not exists(path, backend_args=self.backend_args):
            raise FileNotFoundError(f'no stored logits {path} for {results["img_path"]}')
        scores = decode_array(get(path, backend_args=self.backend_args), path)
        if scores.ndim != 3 or not np.issubdtype(scores.dtype, np.floating):
            raise ValueError(f'{path} must hold floats [K, h, w], got {scores.dtype} '
                             f'{list(scores.shape)}')
        logits = torch.from_numpy(scores.astype(np.float32))
        results['low_res_logits'] = logits_of(logits) if self.probabilities else logits
        track_low_res(results, scores.shape[1:], aligned=self.aligned)
        return results


LoadLRLogits = LoadLowResLogits  # the name of before


@TRANSFORMS.register_module()
class PackRefineInputs(PackSegInputs):
    """mmseg's ``PackSegInputs``, which also packs what the two transforms above added.

    The data sample gets ``low_res_index`` (int64 ``[1, H, W]``, negative on padding), and
    ``low_res_img`` ``[3, h, w]`` or ``low_res_logits`` ``[K, h, w]``. Arguments as in mmseg.
    """

    def transform(self, results: dict) -> dict:
        """Pack.

        Raises:
            KeyError: neither ``KeepLowRes`` nor ``LoadLowResLogits`` stands in the pipeline.
        """
        if INDEX not in results:
            raise KeyError('PackRefineInputs needs mmsparse.KeepLowRes or LoadLowResLogits '
                           'earlier in the pipeline')
        packed = super().transform(results)
        # Padding, whatever number stands there, becomes negative.
        index = torch.from_numpy(-1 - results[INDEX].astype(np.int64))
        fields = dict(low_res_index=index[None])
        fields |= {k: results[k] for k in ('low_res_img', 'low_res_logits') if k in results}
        packed['data_samples'].set_data(
            {name: PixelData(data=data) for name, data in fields.items()})
        return packed
