"""The demo's configs on the built-in scenes, and what makes them small."""
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / 'configs' / 'sparserefine'
REFINE = CONFIGS / 'sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'
DENSE = CONFIGS / 'fcn_hr16s_1xb2-400_scenes-1024x2048.py'
SMALL = [f'{split}_dataloader.dataset.{key}' for split in ('val', 'train', 'test')
         for key in ('size=(128,256)', 'length=4')]
SINGLE = [f'{split}_dataloader.{key}' for split in ('val', 'train', 'test')
          for key in ('num_workers=0', 'persistent_workers=False')]
