"""The mean opinion of several segmentors. Source: SwiftNet (CVPR 2019), supplement Table 4."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.model import ModuleList
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmsparse.hosts import gives_probabilities
from mmsparse.preprocessing import batch_metas, shared_preprocessor
from mmsparse.registry import MODELS


@MODELS.register_module()
class SegEnsemble(BaseSegmentor):
    """Average the class probabilities of trained segmentors at full resolution.

    For inference: members are trained by their own configs. Their data preprocessors must be alike
    (:func:`~mmsparse.preprocessing.shared_preprocessor`). The logits of a data sample are the
    logarithm of the mean probability.

    Args:
        segmentors: configs of the members; ``init_cfg=dict(type='Pretrained', checkpoint=...)``
            inside names the weights of one.

    Raises:
        ValueError: there is no member, the members' classes or preprocessors differ, or one has a
            sigmoid channel.
    """

    def __init__(self, *, segmentors: list[dict], data_preprocessor: dict | None = None,
                 pretrained: None = None, train_cfg: dict | None = None,
                 test_cfg: dict | None = None, init_cfg: dict | None = None) -> None:
        if not segmentors:
            raise ValueError('SegEnsemble.segmentors must name at least one segmentor')
        segmentors = [ConfigDict(s) for s in segmentors]
        super().__init__(init_cfg=init_cfg, data_preprocessor=shared_preprocessor(
            data_preprocessor, {f'segmentors[{index}]': s.pop('data_preprocessor', None)
                                for index, s in enumerate(segmentors)}))
        # mmengine's list: torch's has no init_weights, and the members' weights come by it
        self.segmentors = ModuleList(MMSEG_MODELS.build(s) for s in segmentors)
        channels = [s.out_channels for s in self.segmentors]
        if len(set(channels)) > 1 or channels[0] < 2:
            raise ValueError('the segmentors of a SegEnsemble must predict the same two or more '
                             f'channels, got {channels}')
        self.out_channels, self.num_classes = channels[0], self.segmentors[0].num_classes
        self.align_corners = self.segmentors[0].align_corners
        self.train_cfg, self.test_cfg = train_cfg, test_cfg

    @property
    def decode_head(self) -> nn.Module:
        """The first member's, which mmseg's post-processing asks about its threshold.

        No child of its own: ``init_weights`` would initialize it again after loading.
        """
        return self.segmentors[0].decode_head

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logarithm of the mean probabilities, ``[B, K, H, W]``."""
        size = tuple(inputs.shape[2:])
        mean = torch.zeros((), device=inputs.device)
        for segmentor in self.segmentors:
            # copies: sliding windows write their size into the metas
            logits = segmentor.inference(inputs, [dict(m) for m in batch_img_metas]).float()
            if tuple(logits.shape[2:]) != size:
                logits = F.interpolate(logits, size=size, mode='bilinear',
                                       align_corners=segmentor.align_corners)
            p = logits if gives_probabilities(segmentor) else logits.softmax(1)
            mean = mean + p / len(self.segmentors)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    inference = encode_decode

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
                ) -> list[SegDataSample]:
        """Class maps and logits in mmseg's data samples."""
        return self.postprocess_result(self._forward(inputs, data_samples), data_samples)

    def extract_feat(self, inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """Features of every member."""
        return [segmentor.extract_feat(inputs) for segmentor in self.segmentors]

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs, batch_metas(inputs, data_samples))

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Not defined.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'a SegEnsemble is not trained; train each of its segmentors by its own config')
