"""ImageNet encoders whose taps SwiftNet's decoder reads, at one scale or on an image pyramid.

Source: Orsic et al., "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic
Segmentation of Road-driving Images", CVPR 2019, sec. 3. Letters: ``B`` images, ``C`` channels,
``H, W`` size, ``L`` pyramid levels.
"""
from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleDict
from mmseg.models.backbones import ResNet
from mmseg.models.backbones.resnet import BasicBlock, Bottleneck
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsparse.registry import MODELS

TAPS = ('pre', 'post')
SUBSAMPLES = ('bicubic', 'bilinear')
ROUNDINGS = ('ceil', 'floor')
# Parts of a ResNet in the order in which Table 3 of the supplement adds their pretraining.
PARTS = {'stem': ('conv1.', 'bn1.'), 'rb1': ('layer1.',), 'rb2': ('layer2.',),
         'rb3': ('layer3.',), 'rb4': ('layer4.',)}


def residual_sum(block: BasicBlock | Bottleneck, x: Tensor, relu_before_sum: bool = False
                 ) -> Tensor:
    """What a residual block of mmseg's ResNet puts into its last ReLU.

    Args:
        block: without plugins.
        x: ``[B, C, H, W]``, left as it is.
        relu_before_sum: apply a ReLU to the block's branch before the shortcut is added.
    """
    out, count = x, 3 if hasattr(block, 'conv3') else 2
    for i in range(1, count + 1):
        out = getattr(block, f'norm{i}')(getattr(block, f'conv{i}')(out))
        if i < count or relu_before_sum:
            out = block.relu(out)
    return out + (x if block.downsample is None else block.downsample(x))


@MODELS.register_module()
class SwiftNetResNet(ResNet):
    """mmseg's ResNet whose stages give the sum of their last block before its ReLU.

    The next stage reads the sum after the ReLU. Parameters and their names are torchvision's, so
    ``init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')`` loads them all. Every
    stride-2 operation maps ``n`` to ``ceil(n / 2)``: any image size works.

    Args:
        depth: 18, 34, 50, 101 or 152.
        tap: ``'pre'`` (default, the paper) or ``'post'``: the stages give what follows the ReLU, as
            all released models but the pyramid of 2020 do: their in-place ReLU overwrote the sum.
        relu_before_sum: every block applies a ReLU to its branch before it adds the shortcut. Not
            torchvision's block, but that of the authors' ResNet-50.
        pretrained_parts: with pretrained weights, the parts that keep them, of ``'stem'``,
            ``'rb1'`` to ``'rb4'``; the others are initialized as without pretraining (supplement
            Table 3). ``None`` (default) keeps all.
        **kwargs: of mmseg's ``ResNet``; ``dcn`` and ``plugins`` are not supported.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, depth: int, *, tap: str = 'pre', relu_before_sum: bool = False,
                 pretrained_parts: Sequence[str] | None = None, **kwargs: Any) -> None:
        if tap not in TAPS:
            raise ValueError(f'SwiftNetResNet.tap must be one of {TAPS}, got {tap!r}')
        unknown = set(pretrained_parts or ()) - set(PARTS)
        if unknown:
            raise ValueError(f'SwiftNetResNet.pretrained_parts may name {list(PARTS)}, got '
                             f'{sorted(unknown)}')
        for name in ('dcn', 'plugins'):
            if kwargs.get(name) is not None:
                raise ValueError(f'SwiftNetResNet does not support {name}, got {kwargs[name]!r}')
        super().__init__(depth, **kwargs)
        self.tap = tap
        self.relu_before_sum = relu_before_sum
        self.pretrained_parts = pretrained_parts

    def init_weights(self) -> None:
        """As mmseg's; then parts not in ``pretrained_parts`` start from random weights again."""
        super().init_weights()
        if self.pretrained_parts is None:
            return
        prefixes = self.pretrained_prefixes()
        for name, module in self.named_modules():
            if f'{name}.'.startswith(prefixes):
                continue
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()

    def pretrained_prefixes(self) -> tuple[str, ...]:
        """What the names of parameters that keep pretrained weights begin with."""
        parts = PARTS if self.pretrained_parts is None else self.pretrained_parts
        return tuple(prefix for part in parts for prefix in PARTS[part])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Taps of the stages in ``out_indices``, from stride 4 on: ``[B, C, H / 4, W / 4]`` …"""
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        taps = []
        for i, name in enumerate(self.res_layers):
            for block in getattr(self, name):
                branch = partial(residual_sum, block, relu_before_sum=self.relu_before_sum)
                if block.with_cp and x.requires_grad:
                    tap = checkpoint(branch, x, use_reentrant=False)
                else:
                    tap = branch(x)
                x = F.relu(tap)
            if i in self.out_indices:
                taps.append(tap if self.tap == 'pre' else x)
        return tuple(taps)


def view_with(module: nn.Module, others: dict[str, nn.Module], name: str = '') -> nn.Module:
    """The same network, its layers shared, with other modules under some names."""
    if name in others:
        return others[name]
    if not module._modules:
        return module
    view = copy.copy(module)
    view._modules = {
        key: child if child is None else view_with(child, others, f'{name}.{key}'.lstrip('.'))
        for key, child in module._modules.items()}
    return view


@MODELS.register_module()
class SwiftNetPyramidBackbone(BaseModule):
    """One encoder on an image pyramid: all levels share the convolutions.

    Level ``l`` sees the input resized directly to ``1 / 2^l``. With norms per level (the authors'
    2020 release) every level has batch norms of its own, but for those on shortcuts. A checkpoint
    of the encoder alone, or one with a single set of norms, initializes the norms of every level.

    Source: CVPR 2019, sec. 3.3; Orsic and Segvic, "Efficient semantic segmentation with pyramidal
    fusion", Pattern Recognition 2020.

    Args:
        encoder: config of the encoder; gives four taps, of stride 4 to 32.
        levels: ``L``, 2 or 3.
        per_level_norm: whether every level has batch norms of its own.
        norm_shortcut: with these, also on the shortcuts (modules named ``downsample``).
        rounding: ``'ceil'`` (default, the CVPR release): a level's size is rounded up, and any
            image size works. ``'floor'`` (the 2020 release): it is rounded down, and pixels lie
            exactly ``2^l`` apart. The same where ``2^(L-1)`` divides the image's height and width.
        subsample: ``'bicubic'`` or ``'bilinear'``, without antialiasing unless ``antialias``.
        antialias: low-pass before subsampling.

    Raises:
        ValueError: an argument is out of range; at the call with ``rounding='floor'``, taps of
            equal stride would differ in size.
    """

    PRETRAINED_WITH: ClassVar[dict[str, str]] = {'level_norms': 'encoder'}

    def __init__(self,
                 *,
                 encoder: dict,
                 levels: int = 2,
                 per_level_norm: bool = True,
                 norm_shortcut: bool = False,
                 rounding: str = 'ceil',
                 subsample: str = 'bicubic',
                 antialias: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if levels not in (2, 3):
            raise ValueError(f'SwiftNetPyramidBackbone.levels must be 2 or 3, got {levels!r}')
        for key, value, allowed in (('rounding', rounding, ROUNDINGS),
                                    ('subsample', subsample, SUBSAMPLES)):
            if value not in allowed:
                raise ValueError(f'SwiftNetPyramidBackbone.{key} must be one of {allowed}, got '
                                 f'{value!r}')
        self.levels = levels
        self.rounding = rounding
        self.subsample = subsample
        self.antialias = antialias
        self.encoder = MMSEG_MODELS.build(encoder)
        norms = {name: module for name, module in self.encoder.named_modules()
                 if isinstance(module, nn.modules.batchnorm._BatchNorm)
                 and per_level_norm and (norm_shortcut or 'downsample' not in name)}
        # Norms of the levels after the first, by the encoder's names with '/' for the dot.
        self.level_norms = nn.ModuleList(
            ModuleDict({name.replace('.', '/'): copy.deepcopy(norm)
                        for name, norm in norms.items()})
            for _ in range(levels - 1))
        # Which level computes must not be a state that changes: recomputation in a checkpointed
        # backward would see the last one. So each level is a network of its own, made of the
        # same layers; not registered, because all of their layers are.
        self._views: Iterable[nn.Module] = [self.encoder] + [
            view_with(self.encoder, {
                name.replace('/', '.'): norm for name, norm in own.named_children()})
            for own in self.level_norms]
        self._register_load_state_dict_pre_hook(self._fill_level_norms)

    def unshare(self) -> None:
        """Give every level layers of its own, for :func:`mmsparse.engine.fuse_for_inference`."""
        self._views = nn.ModuleList(copy.deepcopy(view) for view in self._views)
        del self.encoder, self.level_norms

    def init_weights(self) -> None:
        """Initialize the encoder, by its own ``init_cfg``, and start every level's norms there."""
        super().init_weights()
        state = self.encoder.state_dict()
        for own in self.level_norms:
            for name, norm in own.named_children():
                prefix = name.replace('/', '.') + '.'
                norm.load_state_dict({key.removeprefix(prefix): value
                                      for key, value in state.items() if key.startswith(prefix)})

    def train(self, mode: bool = True) -> SwiftNetPyramidBackbone:
        """As usual; an encoder with ``norm_eval`` keeps the norms of every level in evaluation."""
        super().train(mode)
        if mode and getattr(self.encoder, 'norm_eval', False):
            self.level_norms.eval()
        return self

    def _fill_level_norms(self, state_dict: dict, prefix: str, *_: Any) -> None:
        """Let a checkpoint with one set of norms stand for every level."""
        for level, own in enumerate(self.level_norms):
            for key in own.state_dict():
                name, entry = key.rsplit('.', 1)
                source = f'{prefix}encoder.{name.replace("/", ".")}.{entry}'
                target = f'{prefix}level_norms.{level}.{key}'
                if target not in state_dict and source in state_dict:
                    state_dict[target] = state_dict[source].clone()

    def level(self, x: Tensor, number: int) -> Tensor:
        """What level ``number`` sees: the image ``[B, 3, H, W]`` at ``1 / 2^number``."""
        if number == 0:
            return x
        scale, (height, width) = 2**number, x.shape[2:]
        if self.rounding == 'ceil':
            options: dict[str, Any] = dict(size=(-(-height // scale), -(-width // scale)))
        else:
            options = dict(scale_factor=1 / scale)
            # At stride 4 * scale this level's first tap is added to one of the whole image.
            if any(-(-(n // scale) // 4) != -(-n // (4 * scale)) for n in (height, width)):
                raise ValueError(
                    f"SwiftNetPyramidBackbone with rounding='floor' cannot add the taps of an "
                    f'image of {height} x {width}: those of level {number} are too small. Pad it '
                    f"to multiples of {2 ** (self.levels - 1)}, or set rounding='ceil'")
        return F.interpolate(x, mode=self.subsample, align_corners=False, antialias=self.antialias,
                             **options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Taps of all levels, ``4 L`` of them, level by level, fine to coarse within a level."""
        taps: list[Tensor] = []
        for number, encoder in enumerate(self._views):
            taps.extend(encoder(self.level(x, number)))
        return tuple(taps)
