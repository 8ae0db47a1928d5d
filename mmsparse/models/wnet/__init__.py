"""W-Net (Galdran et al., 2020): a light base for refinement on photographs of the retina."""
from .backbone import WNet
from .head import ScoresHead

__all__ = ['ScoresHead', 'WNet']
