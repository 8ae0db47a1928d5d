"""Hooks, and the comparison of models."""
from .comparison import Score, compare
from .progress import RichProgressHook, progress_display

__all__ = ['RichProgressHook', 'Score', 'compare', 'progress_display']
