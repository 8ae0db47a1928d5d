"""Any mmseg segmentor, any mmdet detector with masks, refined by CRM at the size of the original.

Sources: CRM (CVPR 2022); for scene parsing CascadePSP (CVPR 2020), supplement. Letters: ``B``
images, ``K`` classes, ``H, W`` size of the original image.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.fileio import get
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.checkpoint import load_weights
from mmsparse.hosts import gives_probabilities, ignore_index_of, last_head, padding_of
from mmsparse.pictures import decode, orientation
from mmsparse.registry import MODELS
from mmsparse.sparse import UpsampledLogits

from .objects import Job, box_of, crop_around, object_jobs, objects_of, refine_crops
from .refiner import CRMRefiner

POLICY = dict(mode='component', min_area=1024, expand=0.25, stuff_classes=(), stuff_scale=0.51)
MODES = ('component', 'prob')


def original_image(meta: dict) -> Tensor:
    """The image as it was before the test pipeline, uint8 BGR ``[3, H, W]``.

    Taken from ``ori_img`` in the metainfo (an array; for pipelines fed with arrays), else read
    again from ``img_path``.

    An EXIF orientation is followed if the pipeline has done so. ``ori_shape`` tells, except where
    the turned picture has the size of the stored one.

    Raises:
        ValueError: there is neither, it has another size than ``ori_shape``, or whether the
            pipeline has turned it cannot be told.
    """
    image = meta.get('ori_img')
    if image is None:
        if not meta.get('img_path'):
            raise ValueError('the original image is needed: the metainfo has neither img_path nor '
                             'ori_img (name the latter in the meta_keys of the packing transform)')
        path = str(meta['img_path'])
        content = get(path)
        image = decode(content, path, 'color_ignore_orientation')
        if orientation(content) != 1:
            turned = decode(content, path, 'color')
            if turned.shape != image.shape:
                stored = image.shape[:2] == tuple(meta['ori_shape'][:2])
                image = image if stored else turned
            elif not np.array_equal(turned, image):
                raise ValueError(f'{path} has an EXIF orientation, {orientation(content)}, and '
                                 'whether the pipeline follows it cannot be told: add mmsparse.'
                                 'KeepOriginal after loading, and ori_img to the meta_keys of the '
                                 'packing transform')
    if tuple(image.shape[:2]) != tuple(meta['ori_shape'][:2]):
        raise ValueError(f'{meta.get("img_path")} has {image.shape[:2]} pixels, the sample says '
                         f'{tuple(meta["ori_shape"][:2])}')
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def build_refiner(refiner: dict, checkpoint: str | None) -> CRMRefiner:
    """The refiner in evaluation mode, with weights if a checkpoint is named."""
    built = MODELS.build(refiner)
    if checkpoint is not None:
        load_weights(built, checkpoint, 'refiner_checkpoint')
    return built.eval().requires_grad_(False)


def load_base_alone(wrapper: RefinedSegmentor | RefinedDetector, state_dict: dict, prefix: str,
                    *_: Any) -> None:
    """State-dict hook: a checkpoint of the wrapped model alone is a part of the wrapper's.

    The refiner keeps the weights of ``refiner_checkpoint``; without, it has none, and the
    checkpoint does not fit.
    """
    own = tuple(f'{prefix}{part}.' for part in ('base', 'refiner'))
    keys = [key for key in state_dict if key.startswith(prefix)]
    if wrapper.refiner_checkpoint is None or any(key.startswith(own) for key in keys):
        return
    for key in keys:
        state_dict[own[0] + key.removeprefix(prefix)] = state_dict.pop(key)
    state_dict.update(wrapper.refiner.state_dict(prefix=own[1]))


def check_policy(name: str, policy: dict | None, num_classes: int) -> ConfigDict:
    """Defaults and checks of ``class_policy``."""
    policy = ConfigDict(POLICY | dict(policy or {}))
    if policy.mode not in MODES or set(policy) != set(POLICY):
        raise ValueError(f'{name}.class_policy has the keys {sorted(POLICY)} and a mode of '
                         f'{MODES}, got {dict(policy)}')
    check_objects(f'{name}.class_policy', policy.expand, policy.min_area)
    unknown = [kind for kind in policy.stuff_classes if kind not in range(num_classes)]
    if unknown:
        raise ValueError(f"{name}.class_policy.stuff_classes must be numbers of the segmentor's "
                         f'{num_classes} classes, got {unknown}')
    if not 0 <= policy.stuff_scale <= 1:
        raise ValueError(f'{name}.class_policy.stuff_scale must be in [0, 1], got '
                         f'{policy.stuff_scale}')
    return policy


def check_objects(name: str, expand: float, min_area: int) -> None:
    """Refuse negative settings of crops and objects."""
    if expand < 0 or min_area < 0:
        raise ValueError(f'{name}.expand and .min_area must not be negative, got {expand} and '
                         f'{min_area}')


def refuse_settings(name: str, **settings: Any) -> None:
    """Refuse settings that a wrapper does not have; its parts have theirs."""
    for key, value in settings.items():
        if value:
            raise ValueError(f'{name}.{key} must be None, got {value!r}; settings of the wrapped '
                             f'model belong into {name}.base')


@MODELS.register_module()
class RefinedSegmentor(BaseSegmentor):
    """An mmseg segmentor whose every object is refined at the size of the original image.

    Inherit a stock config and replace its model::

        model = dict(
            _delete_=True,
            type='mmsparse.RefinedSegmentor',
            base={{_base_.model}},
            refiner=dict(type='mmsparse.CRMRefiner', ...))

    Objects are found class by class and refined in crops of their own; the results meet in one map
    of labels and one of confidence, so that never more than a few full-size maps exist, whatever
    ``K`` is. The test pipeline may shrink the image: the original is read again.

    Classes, ``ignore_index``, ``align_corners``, threshold and ``test_cfg`` are those of the
    segmentor. The threshold ``t`` of a one-channel head becomes one half by adding ``log((1 - t) /
    t)`` to its logits, so that the rules below, which compare probabilities, hold for it.

    Args:
        base: config of the segmentor; auxiliary heads are left out.
        refiner: config of a :class:`CRMRefiner`.
        base_checkpoint, refiner_checkpoint: weights of either, loaded at construction; all of them
            have to fit. With ``refiner_checkpoint`` alone, what is loaded later (by
            ``init_model``, a test tool) may be the segmentor's own checkpoint instead of the whole
            model's.
        class_policy: how classes and objects meet:

            - ``mode``: ``'component'`` (the protocol of CascadePSP): an object's probability has to
              exceed the confidence found so far, which begins at 0.5; pixels no object claims keep
              the coarse class. ``'prob'``: the refiner sees the softmax of the class instead of a
              hard mask, and the class of the highest probability wins, refined inside the crops of
              the class and coarse outside.
            - ``min_area``: classes and objects of at most this many pixels are not refined.
            - ``expand``: by which share of its sides an object's crop grows.
            - ``stuff_classes``, ``stuff_scale``: classes whose probability counts less.

    Raises:
        ValueError: the policy is out of range, or a checkpoint does not fit.
    """

    def __init__(self,
                 *,
                 base: dict,
                 refiner: dict,
                 base_checkpoint: str | None = None,
                 refiner_checkpoint: str | None = None,
                 class_policy: dict | None = None,
                 data_preprocessor: dict | None = None,
                 pretrained: None = None,
                 train_cfg: None = None,
                 test_cfg: None = None,
                 init_cfg: dict | None = None) -> None:
        base = ConfigDict(base)
        preprocessor = base.pop('data_preprocessor', None)
        super().__init__(data_preprocessor=data_preprocessor or preprocessor, init_cfg=init_cfg)
        refuse_settings(type(self).__name__, pretrained=pretrained, train_cfg=train_cfg,
                        test_cfg=test_cfg)
        base.pop('auxiliary_head', None)
        self.base = MMSEG_MODELS.build(base).eval().requires_grad_(False)
        if base_checkpoint is not None:
            load_weights(self.base, base_checkpoint, 'base_checkpoint')
        self.refiner = build_refiner(refiner, refiner_checkpoint)
        self.refiner_checkpoint = refiner_checkpoint
        self.register_load_state_dict_pre_hook(load_base_alone)
        head = last_head(self.base)
        self.num_classes = max(head.num_classes, 2)
        self.ignore_index = ignore_index_of(self.base)
        self.align_corners = head.align_corners
        self.class_policy = check_policy(type(self).__name__, class_policy, self.num_classes)
        self.logit_shift = 0.0
        if head.out_channels == 1:
            if not 0 < head.threshold < 1:
                raise ValueError('the threshold of a one-channel head must be in (0, 1), got '
                                 f'{head.threshold}')
            self.logit_shift = math.log(1 / head.threshold - 1)

    def upsampled(self, inputs: Tensor, meta: dict) -> UpsampledLogits:
        """The segmentor's scores of one image as a function on its original pixels.

        Args:
            inputs: normalized, ``[1, 3, h, w]``.
        """
        scores = self.base.inference(inputs, [dict(meta)])  # sliding windows write into metas
        left, right, top, bottom = padding_of(meta)
        scores = scores[..., top:scores.shape[2] - bottom, left:scores.shape[3] - right]
        if meta.get('flip'):
            scores = scores.flip(3 if meta['flip_direction'] == 'horizontal' else 2)
        if scores.shape[1] == 1:  # a sigmoid
            scores = torch.cat([torch.zeros_like(scores), scores + self.logit_shift], 1)
        return UpsampledLogits(
            scores, tuple(meta['ori_shape'][:2]), mode='bilinear',
            probabilities=gives_probabilities(self.base), align_corners=self.align_corners)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Refined class maps in ``pred_sem_seg``, the segmentor's own in ``coarse_sem_seg``."""
        for image, sample in zip(inputs, data_samples, strict=True):
            scores = self.upsampled(image[None], sample.metainfo)
            coarse = scores.classes()[0]
            original = original_image(sample.metainfo).to(coarse.device)
            merge = self._merge_objects if self.class_policy.mode == 'component' else (
                self._merge_probabilities)
            refined = merge(original, coarse, scores)
            sample.coarse_sem_seg = PixelData(data=coarse[None])
            sample.pred_sem_seg = PixelData(data=refined[None])
            sample.set_metainfo(dict(ignore_index=self.ignore_index))
        return data_samples

    def _merge_objects(self, image: Tensor, coarse: Tensor, _: UpsampledLogits) -> Tensor:
        policy = self.class_policy
        objects = list(objects_of(coarse.cpu().numpy(), policy.min_area))
        jobs = object_jobs(objects, tuple(coarse.shape), policy.expand, coarse.device)
        label, confidence = coarse.clone(), torch.full(coarse.shape, 0.5, device=coarse.device)
        for job, p in refine_crops(self.refiner, image, jobs):
            kind = objects[job.key].label
            if kind in policy.stuff_classes:
                p = p * policy.stuff_scale
            take_higher(job.crop.of(label), job.crop.of(confidence), kind, p)
        return label

    def _merge_probabilities(self, image: Tensor, coarse: Tensor, scores: UpsampledLogits
                             ) -> Tensor:
        policy = self.class_policy
        total = scores.per_pixel(lambda z: z.float().logsumexp(1), torch.float32)
        label, confidence = torch.zeros_like(coarse), torch.full(
            coarse.shape, -1.0, device=coarse.device)
        objects = sorted(objects_of(coarse.cpu().numpy(), policy.min_area), key=lambda o: o.label)
        for kind in range(self.num_classes):
            p = (scores.channel(kind) - total).exp_()[0]
            crops = [crop_around(o.box, tuple(coarse.shape), policy.expand)
                     for o in objects if o.label == kind]
            jobs = [Job(i, crop, crop.of(p).clone()) for i, crop in enumerate(crops)]
            best = torch.zeros_like(p) if jobs else p
            inside = torch.zeros_like(p, dtype=torch.bool)
            for job, refined in refine_crops(self.refiner, image, jobs):
                part = job.crop.of(best)
                torch.maximum(part, refined, out=part)
                job.crop.of(inside)[:] = True
            best = torch.where(inside, best, p)
            take_higher(label, confidence, kind, best * (
                policy.stuff_scale if kind in policy.stuff_classes else 1))
        return label

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """The segmentor's features."""
        return self.base.extract_feat(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """The segmentor's own logits, unrefined."""
        return self.base.inference(inputs, batch_img_metas)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.base(inputs, data_samples, mode='tensor')

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Not defined: segmentor and refiner are trained apart."""
        raise NotImplementedError(
            'a RefinedSegmentor is not trained: the segmentor and the class-agnostic refiner are, '
            'each by its own config')


def take_higher(label: Tensor, confidence: Tensor, kind: int, p: Tensor) -> None:
    """Where ``p`` exceeds the confidence, write it and the class; in place."""
    higher = p > confidence
    confidence.copy_(torch.where(higher, p, confidence))
    label.masked_fill_(higher, kind)


@MODELS.register_module()
class RefinedDetector(BaseDetector):
    """An mmdet detector whose instance masks are refined at the size of the original image.

    Boxes, scores and labels stay; masks may overlap. Used as :class:`RefinedSegmentor`.

    Args:
        base: config of the detector.
        refiner: config of a :class:`CRMRefiner`.
        base_checkpoint, refiner_checkpoint: as for :class:`RefinedSegmentor`.
        expand: by which share of its sides an instance's crop grows.
        min_area: masks of at most this many pixels are not refined.
    """

    def __init__(self,
                 *,
                 base: dict,
                 refiner: dict,
                 base_checkpoint: str | None = None,
                 refiner_checkpoint: str | None = None,
                 expand: float = POLICY['expand'],
                 min_area: int = POLICY['min_area'],
                 data_preprocessor: dict | None = None,
                 train_cfg: None = None,
                 test_cfg: None = None,
                 init_cfg: dict | None = None) -> None:
        base = ConfigDict(base)
        preprocessor = base.pop('data_preprocessor', None)
        super().__init__(data_preprocessor=data_preprocessor or preprocessor, init_cfg=init_cfg)
        refuse_settings(type(self).__name__, train_cfg=train_cfg, test_cfg=test_cfg)
        check_objects(type(self).__name__, expand, min_area)
        self.base = MMDET_MODELS.build(base).eval().requires_grad_(False)
        if base_checkpoint is not None:
            load_weights(self.base, base_checkpoint, 'base_checkpoint')
        self.refiner = build_refiner(refiner, refiner_checkpoint)
        self.refiner_checkpoint = refiner_checkpoint
        self.register_load_state_dict_pre_hook(load_base_alone)
        self.expand = expand
        self.min_area = min_area

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample],
                rescale: bool = True) -> list[DetDataSample]:
        """Detections with refined ``masks``, those of the detector in ``coarse_masks``.

        Raises:
            ValueError: the detector gives no masks.
        """
        if not rescale:
            raise ValueError('masks are refined on the original image: rescale must be True')
        samples = self.base.predict(batch_inputs, batch_data_samples, rescale=True)
        for sample in samples:
            found = sample.pred_instances
            if 'masks' not in found:
                raise ValueError(f'{type(self.base).__name__} gives no masks to refine')
            found.coarse_masks = found.masks
            if len(found):
                found.masks = self.refine_masks(original_image(sample.metainfo), found.masks)
        return samples

    def refine_masks(self, image: Tensor, masks: Tensor) -> Tensor:
        """Refine masks one by one.

        Args:
            image: uint8 ``[3, H, W]``.
            masks: bool ``[N, H, W]``.
        """
        areas, rows, columns = (x.cpu().numpy() for x in (
            masks.flatten(1).sum(1), masks.any(2), masks.any(1)))

        def jobs() -> Iterator[Job]:
            for key in np.flatnonzero(areas > self.min_area).tolist():
                box = box_of(rows[key], columns[key])
                crop = crop_around(box, tuple(masks.shape[1:]), self.expand)
                yield Job(key, crop, crop.of(masks[key]).float())

        refined = masks.clone()
        for job, p in refine_crops(self.refiner, image.to(masks.device), jobs()):
            refined[job.key].zero_()
            job.crop.of(refined[job.key]).copy_(p > 0.5)
        return refined

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The detector's features."""
        return self.base.extract_feat(batch_inputs)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample] | None = None
                 ) -> tuple:
        return self.base(batch_inputs, batch_data_samples, mode='tensor')

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict:
        """Not defined: detector and refiner are trained apart."""
        raise NotImplementedError(
            'a RefinedDetector is not trained: the detector and the class-agnostic refiner are, '
            'each by its own config')
