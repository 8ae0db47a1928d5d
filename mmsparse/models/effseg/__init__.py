"""EffSeg (2023): fine instance masks that cost what their hard cells cost."""
from .paste import Pasted, paste_masks
from .refine_mask import RefineMaskHead

__all__ = ['Pasted', 'RefineMaskHead', 'paste_masks']
