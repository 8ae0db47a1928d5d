from .bdd100k import BDD100KDataset as BDD100KDataset
from .camvid import CamVidDataset as CamVidDataset
from .cityscapes import CityscapesDataset as CityscapesDataset
from .deepglobe import DeepGlobeLandCoverDataset as DeepGlobeLandCoverDataset
from .hrf import HRFDataset as HRFDataset
from .isic import ISICDataset as ISICDataset
from .layout import CheckedSegDataset as CheckedSegDataset
from .mask_refine import BIGDataset as BIGDataset, SaliencyRefineDataset as SaliencyRefineDataset
from .scene_dataset import SceneDataset as SceneDataset
from .scene_instances import SceneInstanceDataset as SceneInstanceDataset
from .scenes import render_scene as render_scene
from .transforms import *
from .voc import PascalVOCDataset as PascalVOCDataset
