"""Any mmseg segmentor at low resolution, refined at full resolution where it is uncertain.

Source: SparseRefine (ECCV 2024), sec. 3. Letters: ``B`` images, ``K`` classes, ``H, W`` full
size, ``h, w`` low-resolution size, ``N`` selected pixels of the batch.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmengine.utils import deprecated_api_warning
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from mmsparse.checkpoint import load_weights
from mmsparse.eager import eager
from mmsparse.hosts import gives_probabilities, ignore_index_of, last_head
from mmsparse.labels import check_first_labels
from mmsparse.preprocessing import (
    FLIPS,
    Placement,
    batch_metas,
    placements_of,
    plain_samples,
    prepare,
    shared_preprocessor,
    store_maps,
    valid_mask,
)
from mmsparse.registry import MODELS
from mmsparse.sizes import scaled, size_of
from mmsparse.sparse import Selection, SparseMap, UpsampledLogits, logits_of
from mmsparse.sparse.upsampled import MODES, classes_of

from .head import inherit
from .indexed import IndexedLogits
from .low_resolution import class_scores
from .selectors import LearnableSelector
from .weights import refuse_foreign_weights
from .windows import check_test_cfg, is_size, refine_windows

JOINT_AUG = ('pre_lr', 'post_lr')
FEATURES = ('rgb', 'p')


# On the CPU a backward pass runs in the thread that asks for it, and spconv's is Python: in a
# compiled training step dynamo would trace it for every layer and number of pixels.
@eager
def update_eagerly(optim_wrapper: OptimWrapper, loss: Tensor) -> None:
    """Backward pass and optimizer's step as they are; what was compiled before stays compiled."""
    optim_wrapper.update_params(loss)


class Refinable(NamedTuple):
    """What the refining head works on in a batch of images.

    Attributes:
        placements: of the images in the batch.
        low: the low-resolution logits.
        valid: pixels that are not padding, bool ``[B, H, W]``; ``None`` if all are.
        selection: what the selector chose of them.
        pixels: the selected pixels with their features, ``N`` of them.
        logits: low-resolution logits of these, ``[N, K]``.
    """

    placements: list[Placement]
    low: UpsampledLogits
    valid: Tensor | None
    selection: Selection
    pixels: SparseMap
    logits: Tensor


@MODELS.register_module()
class SparseRefineSegmentor(BaseSegmentor):
    """A frozen segmentor on the downsampled image, sparse refinement on the original.

    Inherit a stock config and replace its model::

        model = dict(
            _delete_=True,
            type='mmsparse.SparseRefineSegmentor',
            segmentor={{_base_.model}},
            segmentor_checkpoint='low_resolution.pth',
            selector=dict(type='mmsparse.EntropySelector', alpha=0.3))

    Only the selector and the head are trained; the segmentor stays in evaluation mode, without
    gradients, and sees the augmented image at the low resolution. It should have been trained for
    that resolution.

    After ``predict`` every data sample holds ``pred_sem_seg``, and beside it ``low_res_sem_seg``
    (int64 ``[1, H, W]``, the low-resolution prediction at full size) and ``selected`` (bool
    ``[1, H, W]``, the refined pixels); with a budget its metainfo holds ``selection_threshold``,
    the threshold that the budget amounted to. Its metainfo also holds ``ignore_index``, which
    mmsparse's metrics go by.

    Classes, ``ignore_index``, ``align_corners`` and ``threshold`` are those of the segmentor's
    last head, for the refining head too. The labels of the first training batches are checked
    (:class:`~mmsparse.labels.LabelCheck`).

    A segmentor whose head has one sigmoid channel ``z`` is refined as two classes of logits
    ``(0, z)``; the model's own logits are again one channel, and the head's ``threshold`` holds.

    Args:
        segmentor: config of any mmseg segmentor. Its auxiliary heads are dropped.
        selector: config of the selector; ``num_classes`` is filled in.
        decode_head: config of the refining head; ``num_classes`` and ``ignore_index`` are filled
            in.
        segmentor_checkpoint: weights of the segmentor, loaded strictly when training starts. With
            ``None`` its own ``init_cfg`` applies. Not needed with a checkpoint of this model,
            which contains them.
        low_res_scale: low-resolution size as a share of the input's, in ``(0, 1]``.
        low_res_size: fixed low-resolution size ``(h, w)`` instead of ``low_res_scale``.
        low_res_flips: the segmentor's scores are the mean over the small image and these flips of
            it, of ``'horizontal'``, ``'vertical'`` and ``'diagonal'`` (both): better scores, and a
            better selection, for a low-resolution pass each.
        features: what is known of a selected pixel, in this order: ``'rgb'``, its normalized color;
            ``'p'``, its low-resolution class probabilities. The paper reads color alone; where
            color does not tell classes apart (arteries and veins), the probabilities do. The
            extractor's ``in_channels`` have to fit.
        upsample: how low-resolution logits reach full resolution. ``'nearest'`` (default, as in the
            paper's released code) costs less, because entropy and class are computed at low
            resolution; ``'bilinear'`` scores the same within noise: docs/sparserefine.md.
        probabilities: the segmentor's scores are probabilities, not logits; ``None`` (default)
            knows it of mmseg's heads (MaskFormer's and Mask2Former's are).
        joint_aug: what the segmentor sees in training. ``'pre_lr'`` (default): the augmented
            image. ``'post_lr'``, as in the paper's released code: the clean one, whose logits are
            scaled, cropped and flipped together with image and label; the training pipeline then
            has ``mmsparse.KeepLowRes`` or ``mmsparse.LoadLowResLogits``. Stored logits also serve
            in testing, in place of the segmentor.
        data_preprocessor: as in mmseg; default is the segmentor's, whose normalization it must have
            (:func:`~mmsparse.preprocessing.shared_preprocessor`).
        pretrained: must be ``None``, which mmseg's tools set.
        train_cfg: kept for mmseg's tools; has no keys.
        test_cfg: ``mode='whole'``, or ``mode='slide'`` with ``crop_size`` and ``stride``, ``(h,
            w)`` each (the segmentor still sees the whole image, only the refinement goes window by
            window).
            ``seg_logits=True`` (default) returns full-size logits in every data sample, as mmseg
            does and its test-time augmentation needs; ``False`` builds only class maps.
            ``keep_score=True`` stores the selector's score as ``selection_score``, for pictures.
        init_cfg: as in mmengine.

    Raises:
        ValueError: a setting is out of range, or one of selector or head disagrees with the
            segmentor.
    """

    @deprecated_api_warning(dict(lr_scale='low_res_scale', lr_size='low_res_size'),
                            cls_name='SparseRefineSegmentor')
    def __init__(self,
                 *,
                 segmentor: dict,
                 selector: dict,
                 decode_head: dict | None = None,
                 segmentor_checkpoint: str | None = None,
                 low_res_scale: float = 0.5,
                 low_res_size: tuple[int, int] | None = None,
                 low_res_flips: Sequence[str] = (),
                 features: Sequence[str] = ('rgb',),
                 upsample: str = 'nearest',
                 probabilities: bool | None = None,
                 joint_aug: str = 'pre_lr',
                 data_preprocessor: dict | None = None,
                 pretrained: None = None,
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        segmentor = ConfigDict(segmentor)  # mmseg reads test_cfg by attribute
        segmentor.pop('auxiliary_head', None)
        super().__init__(init_cfg=init_cfg, data_preprocessor=shared_preprocessor(
            data_preprocessor, dict(segmentor=segmentor.pop('data_preprocessor', None))))
        if low_res_size is None and not 0 < low_res_scale <= 1:
            raise ValueError(f'low_res_scale must be in (0, 1], got {low_res_scale!r}')
        if low_res_size is not None and not is_size(low_res_size):
            raise ValueError(f'low_res_size must be (h, w) in pixels, got {low_res_size!r}')
        if len(set(low_res_flips)) < len(low_res_flips) or not set(low_res_flips) <= set(FLIPS):
            raise ValueError(
                f'low_res_flips must be some of {tuple(FLIPS)}, got {low_res_flips!r}')
        if not features or len(set(features)) < len(features) or not set(features) <= set(FEATURES):
            raise ValueError(f'features must be some of {FEATURES}, got {features!r}')
        if upsample not in MODES:
            raise ValueError(f'upsample must be one of {MODES}, got {upsample!r}')
        if joint_aug not in JOINT_AUG:
            raise ValueError(f'joint_aug must be one of {JOINT_AUG}, got {joint_aug!r}')
        if pretrained is not None:
            raise ValueError(f'pretrained must be None, got {pretrained!r}; name the weights of '
                             'the segmentor in segmentor_checkpoint')
        self.low_res_scale = low_res_scale
        self.low_res_size = low_res_size
        self.low_res_flips = tuple(low_res_flips)
        self.features = tuple(features)
        self.upsample = upsample
        self.joint_aug = joint_aug
        self.segmentor_checkpoint = segmentor_checkpoint

        self.segmentor = MMSEG_MODELS.build(segmentor).eval().requires_grad_(False)
        head = last_head(self.segmentor)
        self.out_channels = head.out_channels  # one channel is a sigmoid
        self.num_classes = max(head.num_classes, 2)
        self.threshold = head.threshold if self.out_channels == 1 else None
        self.probabilities = gives_probabilities(self.segmentor, probabilities)
        self.ignore_index = ignore_index_of(self.segmentor)
        self.align_corners = head.align_corners
        self.selector = MODELS.build(inherit(
            'selector', selector, 'the segmentor', num_classes=self.num_classes))
        self.decode_head = MODELS.build(inherit(
            'decode_head', decode_head or dict(type='mmsparse.SparseRefineHead'), 'the segmentor',
            num_classes=self.num_classes, ignore_index=self.ignore_index))
        # mmseg's post-processing and test-time augmentation read these from the decode head.
        self.decode_head.out_channels = self.out_channels
        self.decode_head.threshold = self.threshold
        self.decode_head.align_corners = self.align_corners
        if train_cfg:
            raise ValueError(f'train_cfg has no keys, got {dict(train_cfg)}')
        self.train_cfg = train_cfg
        self.test_cfg = check_test_cfg(test_cfg)
        check_first_labels(self)
        self._register_load_state_dict_pre_hook(refuse_foreign_weights)

    # ---- construction -------------------------------------------------------------------------

    def init_weights(self) -> None:
        """Load the segmentor's checkpoint, then initialize the rest as mmengine does."""
        if self.segmentor_checkpoint is not None:
            load_weights(self.segmentor, self.segmentor_checkpoint, 'segmentor_checkpoint')
            self.segmentor._is_init = True  # or its `pretrained` backbone would be fetched now
        super().init_weights()

    def train(self, mode: bool = True) -> SparseRefineSegmentor:
        """Training mode for selector and head; the segmentor always stays in evaluation mode."""
        super().train(mode)
        self.segmentor.eval()
        return self

    # ---- the way of the data ------------------------------------------------------------------

    @torch.no_grad()
    def low_resolution(self, inputs: Tensor) -> UpsampledLogits:
        """The frozen segmentor's logits on the downsampled images.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.

        Raises:
            ValueError: the logits hold NaN.
        """
        if inputs.ndim != 4 or inputs.shape[1] != 3:
            raise ValueError(f'images must be [B, 3, H, W], got {list(inputs.shape)}')
        height, width = map(int, inputs.shape[2:])  # tensors while mmengine traces
        full = height, width
        size = self.low_res_size or scaled(full, self.low_res_scale)
        return self.upsampled(self.low_scores(inputs, size), full)

    def low_scores(self, inputs: Tensor, size: tuple[int, int]) -> Tensor:
        """The frozen segmentor's scores ``[B, K, h, w]`` of images resized to ``size = (h, w)``."""
        low = inputs if size == tuple(map(int, inputs.shape[2:])) else F.interpolate(
            inputs, size=size, mode='bilinear', align_corners=False)
        return class_scores(self.segmentor, low, self.low_res_flips)

    def upsampled(self, scores: Tensor, size: tuple[int, int]) -> UpsampledLogits:
        """The segmentor's scores ``[B, K, h, w]``, read at full resolution, ``size = (H, W)``."""
        return UpsampledLogits(
            scores, size, mode=self.upsample, probabilities=self.probabilities,
            threshold=self.threshold, align_corners=self.align_corners)

    def low_logits(self, inputs: Tensor, data_samples: list[SegDataSample]) -> UpsampledLogits:
        """Low-resolution logits from where ``joint_aug`` says they come.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.
            data_samples: with ``low_res_index``, if the logits are those of the clean images; with
                ``low_res_scores`` ``[K, h, w]``, if the images are windows of larger ones and these
                their parts of the segmentor's scores.
        """
        clean = 'low_res_index' in data_samples[0]
        if self.training and clean != (self.joint_aug == 'post_lr'):
            transforms = 'mmsparse.KeepLowRes or mmsparse.LoadLowResLogits, and PackRefineInputs'
            has = 'has' if clean else 'lacks'
            raise ValueError(f'joint_aug is {self.joint_aug!r}, but the training pipeline {has} '
                             f"{transforms}: they belong to joint_aug='post_lr' and to it alone")
        if clean:
            return IndexedLogits.of_clean_images(
                data_samples, inputs, self.clean_logits, num_classes=self.num_classes,
                threshold=self.threshold)
        if 'low_res_scores' in data_samples[0]:
            return self.upsampled(torch.stack([s.low_res_scores.data for s in data_samples]),
                                  size_of(inputs))
        return self.low_resolution(inputs)

    @torch.no_grad()
    def clean_logits(self, images: Tensor) -> Tensor:
        """The frozen segmentor's logits ``[B, K, h, w]`` of images ``[B, 3, h, w]`` as loaded."""
        scores = class_scores(
            self.segmentor, prepare(images, self.data_preprocessor), self.low_res_flips)
        return logits_of(scores) if self.probabilities else scores

    def valid(self, inputs: Tensor, low: UpsampledLogits, placements: list[Placement]
              ) -> Tensor | None:
        """Pixels that are not padding, bool ``[B, H, W]``; ``None`` if all are."""
        valid = valid_mask(placements, inputs)
        if isinstance(low, IndexedLogits):
            valid = low.inside if valid is None else valid & low.inside
        return valid

    def select(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Refinable:
        """The way of every batch to the refining head, in training and in inference.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.
            data_samples: carry padding; where :meth:`low_logits` asks for them, clean images or
                stored logits.
        """
        low = self.low_logits(inputs, data_samples)
        placements = placements_of(batch_metas(inputs, data_samples), inputs)
        valid = self.valid(inputs, low, placements)
        selection = self.selector(inputs, low, valid)
        pixels, logits = self.gather(inputs, selection.mask, low)
        return Refinable(placements, low, valid, selection, pixels, logits)

    def gather(self, inputs: Tensor, mask: Tensor, low: UpsampledLogits
               ) -> tuple[SparseMap, Tensor]:
        """The selected pixels with their ``features``, and low-resolution logits ``[N, K]``."""
        pixels = SparseMap.from_mask(inputs, mask)
        low_logits = low.at(pixels.topology.indices)
        features = dict(rgb=pixels.features)
        if 'p' in self.features:
            features['p'] = low_logits.float().softmax(1).to(pixels.features.dtype)
        return (pixels.replace_features(torch.cat([features[name] for name in self.features], 1)),
                low_logits)

    def refine(self, pixels: SparseMap, low_logits: Tensor) -> Tensor:
        """Refined logits of the selected pixels, ``[N, K]``."""
        if self.test_cfg['mode'] == 'slide':
            return refine_windows(
                self.decode_head.predict, pixels, low_logits,
                crop_size=self.test_cfg['crop_size'], stride=self.test_cfg['stride'])
        return self.decode_head.predict(pixels, low_logits)

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """mmengine's, with the backward pass out of reach of ``compile=True``."""
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
            losses = self._run_forward(data, mode='loss')
        loss, log = self.parse_losses(losses)
        update_eagerly(optim_wrapper, loss)
        return log

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Losses of selector and head.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.
            data_samples: with ``gt_sem_seg`` ``[1, H, W]``.

        Returns:
            ``decode.*`` losses, and ``decode.density``, the share of pixels selected.
        """
        labels = torch.stack([s.gt_sem_seg.data.squeeze(0) for s in data_samples])
        batch = self.select(inputs, data_samples)
        losses = self.decode_head.loss(batch.pixels, batch.logits, batch.pixels.read(labels).long())
        if isinstance(self.selector, LearnableSelector):
            losses |= self.selector.loss(
                inputs, batch.low, labels, batch.valid, ignore_index=self.ignore_index)
        losses['density'] = labels.new_tensor(
            len(batch.pixels) / labels.numel(), dtype=torch.float32)
        return add_prefix(losses, 'decode')

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
                ) -> list[SegDataSample]:
        """Class maps, and by ``test_cfg`` logits, in mmseg's data samples.

        Args:
            inputs: normalized images ``[B, 3, H, W]``.
            data_samples: carry padding, flip and the original size; ``None`` means none of these.
        """
        data_samples = data_samples or plain_samples(inputs)
        batch = self.select(inputs, data_samples)
        self.write_back(data_samples, batch, self.refine(batch.pixels, batch.logits))
        if self.test_cfg['keep_score']:
            store_maps(data_samples, batch.placements,
                       selection_score=self.selector.score(inputs, batch.low))
        for sample in data_samples:
            sample.set_metainfo(dict(ignore_index=self.ignore_index))
        if (thresholds := batch.selection.threshold) is not None:
            for sample, threshold in zip(data_samples, thresholds.tolist(), strict=True):
                sample.set_metainfo(dict(selection_threshold=threshold))
        return data_samples

    def write_back(self, data_samples: list[SegDataSample], batch: Refinable, refined: Tensor
                   ) -> None:
        """Store the class maps before and after, the mask, and logits if ``test_cfg`` says so.

        Args:
            refined: logits ``[N, K]`` of the selected pixels.
        """
        low_classes = batch.low.classes()
        maps = dict(low_res_sem_seg=low_classes, selected=batch.selection.mask)
        if self.test_cfg['seg_logits']:
            self.postprocess_result(self.write_logits(batch, refined), data_samples)
        elif all(place.size == place.ori_shape for place in batch.placements):
            maps['pred_sem_seg'] = batch.pixels.write(
                low_classes.clone(), classes_of(refined, self.threshold))
        else:
            # The classes of the resized logits, which are larger than all else, band by band.
            logits = batch.pixels.write(batch.low.full(), refined)
            for sample, place, image in zip(data_samples, batch.placements, logits, strict=True):
                upright = place.upright(image)[None]
                assert place.ori_shape is not None, 'upright() refuses it'
                resized = UpsampledLogits(
                    upright, place.ori_shape, mode='bilinear', align_corners=self.align_corners,
                    threshold=self.threshold)
                sample.pred_sem_seg = PixelData(data=resized.classes())
        store_maps(data_samples, batch.placements, **maps)

    def write_logits(self, batch: Refinable, refined: Tensor) -> Tensor:
        """Refined logits ``[N, K]`` in place of the low-resolution ones, ``[B, K or 1, H, W]``."""
        logits = batch.pixels.write(batch.low.full(), refined)
        return logits[:, 1:] - logits[:, :1] if self.out_channels == 1 else logits

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Full-size logits ``[B, K, H, W]``; unselected pixels keep the segmentor's bit for bit.

        One channel, ``[B, 1, H, W]``, if the segmentor's head has one.
        """
        batch = self.select(inputs, data_samples or plain_samples(inputs))
        return self.write_logits(batch, self.refine(batch.pixels, batch.logits))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits of ``mode='tensor'``, by mmseg's other name for them."""
        return self._forward(inputs, [SegDataSample(metainfo=meta) for meta in batch_img_metas])

    encode_decode = inference

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Low-resolution logits ``[B, K, h, w]``, what stands for features here."""
        return self.low_resolution(inputs).scores
