"""Any mmseg segmentor, every object of it refined by CRM at the size of the original image.

Sources: CRM (CVPR 2022); for scene parsing CascadePSP (CVPR 2020), supplement. Letters: ``B``
images, ``K`` classes, ``H, W`` size of the original image.
"""
from __future__ import annotations

import math

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmsparse.hosts import gives_probabilities, ignore_index_of, last_head, warn_of_probabilities
from mmsparse.preprocessing import Placement, shared_preprocessor
from mmsparse.registry import MODELS
from mmsparse.sizes import size_of
from mmsparse.sparse import UpsampledLogits

from .objects import Job, crop_around, object_jobs, objects_of, refine_crops
from .wrappers import (
    EXPAND,
    MIN_AREA,
    check_objects,
    join_parts,
    original_image,
    refuse_settings,
)

POLICY = dict(
    mode='component', min_area=MIN_AREA, expand=EXPAND, stuff_classes=(), stuff_scale=0.51)
MODES = ('component', 'prob')


def check_policy(name: str, policy: dict | None, num_classes: int) -> ConfigDict:
    """Defaults and checks of ``class_policy``."""
    cfg = ConfigDict(POLICY | dict(policy or {}))
    if cfg.mode not in MODES or set(cfg) != set(POLICY):
        raise ValueError(f'{name}.class_policy has the keys {sorted(POLICY)} and a mode of '
                         f'{MODES}, got {dict(cfg)}')
    check_objects(f'{name}.class_policy', cfg.expand, cfg.min_area)
    unknown = [cls for cls in cfg.stuff_classes if cls not in range(num_classes)]
    if unknown:
        raise ValueError(f"{name}.class_policy.stuff_classes must be numbers of the segmentor's "
                         f'{num_classes} classes, got {unknown}')
    if not 0 <= cfg.stuff_scale <= 1:
        raise ValueError(f'{name}.class_policy.stuff_scale must be in [0, 1], got '
                         f'{cfg.stuff_scale}')
    return cfg


@MODELS.register_module()
class RefinedSegmentor(BaseSegmentor):
    """An mmseg segmentor whose every object is refined at the size of the original image.

    Inherit a stock config and replace its model::

        model = dict(
            _delete_=True,
            type='mmsparse.RefinedSegmentor',
            segmentor={{_base_.model}},
            refiner=dict(type='mmsparse.CRMRefiner', ...))

    Objects are found class by class and refined in crops of their own; the results meet in one map
    of labels and one of confidence, so that never more than a few full-size maps exist, whatever
    ``K`` is. The test pipeline may shrink the image: the original is read again.

    Classes, ``ignore_index``, ``align_corners``, threshold and ``test_cfg`` are those of the
    segmentor. The threshold ``t`` of a one-channel head becomes one half by adding ``log((1 - t) /
    t)`` to its logits, so that the rules below, which compare probabilities, hold for it.

    Args:
        segmentor: its config; auxiliary heads are left out.
        refiner: config of a :class:`CRMRefiner`.
        segmentor_checkpoint, refiner_checkpoint: weights of either, loaded at construction; all of
            them have to fit. With ``refiner_checkpoint`` alone, what is loaded later (by
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
        probabilities: the segmentor's scores are probabilities, not logits; ``None`` (default)
            knows it of mmseg's heads (MaskFormer's and Mask2Former's are).

    Raises:
        ValueError: the policy is out of range, a checkpoint does not fit, or the data preprocessor
            normalizes otherwise than the segmentor's.
    """

    def __init__(self,
                 *,
                 segmentor: dict,
                 refiner: dict,
                 segmentor_checkpoint: str | None = None,
                 refiner_checkpoint: str | None = None,
                 class_policy: dict | None = None,
                 probabilities: bool | None = None,
                 data_preprocessor: dict | None = None,
                 pretrained: None = None,
                 train_cfg: None = None,
                 test_cfg: None = None,
                 init_cfg: dict | None = None) -> None:
        segmentor = ConfigDict(segmentor)
        super().__init__(init_cfg=init_cfg, data_preprocessor=shared_preprocessor(
            data_preprocessor, dict(segmentor=segmentor.pop('data_preprocessor', None))))
        refuse_settings(type(self).__name__, pretrained=pretrained, train_cfg=train_cfg,
                        test_cfg=test_cfg)
        segmentor.pop('auxiliary_head', None)
        join_parts(self, 'segmentor', MMSEG_MODELS.build(segmentor), refiner,
                   checkpoint=segmentor_checkpoint, refiner_checkpoint=refiner_checkpoint)
        head = last_head(self.segmentor)
        self.num_classes = max(head.num_classes, 2)
        self.ignore_index = ignore_index_of(self.segmentor)
        self.align_corners = head.align_corners
        self.probabilities = gives_probabilities(self.segmentor, probabilities)
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
        scores = self.segmentor.inference(inputs, [dict(meta)])  # sliding windows write into metas
        warn_of_probabilities(self.segmentor, scores, 'model.probabilities')
        scores = Placement.of(meta, scores).upright(scores)
        if scores.shape[1] == 1:  # a sigmoid
            scores = torch.cat([torch.zeros_like(scores), scores + self.logit_shift], 1)
        return UpsampledLogits(
            scores, tuple(meta['ori_shape'][:2]), mode='bilinear',
            probabilities=self.probabilities, align_corners=self.align_corners)

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
        jobs = object_jobs(objects, size_of(coarse), policy.expand, coarse.device)
        label, confidence = coarse.clone(), torch.full(coarse.shape, 0.5, device=coarse.device)
        for job, p in refine_crops(self.refiner, image, jobs):
            cls = objects[job.key].label
            if cls in policy.stuff_classes:
                p = p * policy.stuff_scale
            take_higher(job.crop.of(label), job.crop.of(confidence), cls, p)
        return label

    def _merge_probabilities(self, image: Tensor, coarse: Tensor, scores: UpsampledLogits
                             ) -> Tensor:
        policy = self.class_policy
        total = scores.per_pixel(lambda z: z.float().logsumexp(1), torch.float32)
        label, confidence = torch.zeros_like(coarse), torch.full(
            coarse.shape, -1.0, device=coarse.device)
        objects = sorted(objects_of(coarse.cpu().numpy(), policy.min_area), key=lambda o: o.label)
        for cls in range(self.num_classes):
            p = (scores.channel(cls) - total).exp_()[0]
            crops = [crop_around(o.box, size_of(coarse), policy.expand)
                     for o in objects if o.label == cls]
            jobs = [Job(i, crop, crop.of(p).clone()) for i, crop in enumerate(crops)]
            best = torch.zeros_like(p) if jobs else p
            inside = torch.zeros_like(p, dtype=torch.bool)
            for job, refined in refine_crops(self.refiner, image, jobs):
                part = job.crop.of(best)
                torch.maximum(part, refined, out=part)
                job.crop.of(inside)[:] = True
            best = torch.where(inside, best, p)
            take_higher(label, confidence, cls, best * (
                policy.stuff_scale if cls in policy.stuff_classes else 1))
        return label

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """The segmentor's features."""
        return self.segmentor.extract_feat(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """The segmentor's own logits, unrefined."""
        return self.segmentor.inference(inputs, batch_img_metas)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.segmentor(inputs, data_samples, mode='tensor')

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Not defined: segmentor and refiner are trained apart."""
        raise NotImplementedError(
            'a RefinedSegmentor is not trained: the segmentor and the class-agnostic refiner are, '
            'each by its own config')


def take_higher(label: Tensor, confidence: Tensor, cls: int, p: Tensor) -> None:
    """Where ``p`` exceeds the confidence, write it and the class; in place."""
    higher = p > confidence
    confidence.copy_(torch.where(higher, p, confidence))
    label.masked_fill_(higher, cls)
