"""EffSeg (2023): fine instance masks that cost what their hard cells cost."""
from .paste import Pasted, paste_masks

__all__ = ['Pasted', 'paste_masks']
