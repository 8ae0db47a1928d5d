"""What every method has to know of the mmseg models it is built on: which scores their heads give.

And how mmseg notes the padding of an image.
"""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

# Heads whose `predict` returns softmax(query class) x sigmoid(mask), with all that inherit from
# them. By name: importing mmseg's would import mmdet.
PROBABILITY_HEADS = {'MaskFormerHead', 'Mask2FormerHead'}
# Heads whose scores a config has spoken of, or that have been looked at.
_settled: WeakSet[nn.Module] = WeakSet()


def last_head(segmentor: nn.Module) -> BaseDecodeHead:
    """The head that gives a segmentor's result, the last one of a cascade."""
    head: Any = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def ignore_index_of(segmentor: nn.Module) -> int:
    """The label that a segmentor does not learn from; 255 if it learns from all."""
    ignore_index = last_head(segmentor).ignore_index
    return 255 if ignore_index is None else ignore_index


def gives_probabilities(segmentor: nn.Module, setting: bool | None = None) -> bool:
    """Whether its scores are probabilities, which need not sum to one, and not logits.

    Args:
        segmentor: with a ``decode_head``, or several.
        setting: what a config says of it; ``None`` goes by the class of the head. Who asks so calls
            :func:`warn_of_probabilities` with the scores.
    """
    head = last_head(segmentor)
    if setting is not None:
        _settled.add(head)
        return setting
    return any(cls.__name__ in PROBABILITY_HEADS for cls in type(head).__mro__)


def warn_of_probabilities(segmentor: nn.Module, scores: Tensor, key: str) -> None:
    """Warn if scores that are taken for logits look like probabilities; once for each head.

    The first scores of every head are looked at, unless a config has settled what they are.

    Args:
        segmentor: that gave them.
        scores: ``[B, K, h, w]``.
        key: of the config by which they can be declared probabilities, as
            ``'model.probabilities'``.
    """
    head = last_head(segmentor)
    if torch.compiler.is_compiling() or head in _settled:  # a graph cannot look at values
        return
    _settled.add(head)
    if gives_probabilities(segmentor) or scores.shape[1] == 1:
        return
    low, high = scores.aminmax()
    if low >= 0 and high <= 1 and (scores.float().sum(1) - 1).abs().max() < 0.05:  # of bfloat16
        warnings.warn(
            f'the scores of {type(head).__name__} are taken for logits, but lie between 0 and 1 '
            f'and sum to 1, as probabilities do: if they are, set {key}=True in the config, else '
            f'{key}=False', stacklevel=2)


def padding_of(meta: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding of an image in pixels, by mmseg's two names."""
    return tuple(meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0))))
