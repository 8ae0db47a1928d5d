from .ensemblers import EntropyEnsembler as EntropyEnsembler, GatedEnsembler as GatedEnsembler
from .extractor import SparseUNet as SparseUNet
from .head import SparseRefineHead as SparseRefineHead
from .indexed import IndexedLogits as IndexedLogits
from .losses import PointDiceLoss as PointDiceLoss
from .segmentor import SparseRefineSegmentor as SparseRefineSegmentor
from .selectors import LearnableSelector as LearnableSelector
