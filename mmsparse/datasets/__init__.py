"""Data: built-in procedural scenes, CamVid, the datasets of SparseRefine's and CRM's papers."""
from mmsparse.lazy import attach

from . import transforms

__getattr__, __dir__, __all__ = attach(__name__, {
    'bdd100k': ('BDD100KDataset',),
    'camvid': ('CamVidDataset',),
    'cityscapes': ('CityscapesDataset',),
    'deepglobe': ('DeepGlobeLandCoverDataset',),
    'hrf': ('HRFDataset',),
    'isic': ('ISICDataset',),
    'layout': ('CheckedSegDataset',),
    'mask_refine': ('BIGDataset', 'SaliencyRefineDataset'),
    'scene_dataset': ('SceneDataset',),
    'scene_instances': ('SceneInstanceDataset',),
    'scenes': ('render_scene',),
    'transforms': transforms.__all__,
    'voc': ('PascalVOCDataset',),
})
