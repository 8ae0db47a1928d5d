"""Transforms of the data pipelines."""
from .render import RenderScene

__all__ = ['RenderScene']
