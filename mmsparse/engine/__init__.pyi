from .active_cells_hook import ActiveCellsHook as ActiveCellsHook
from .autocast import BFloat16OptimWrapper as BFloat16OptimWrapper
from .channels_last_hook import ChannelsLastHook as ChannelsLastHook
from .comparison import Score as Score, compare as compare
from .freeze_hook import FreezeHook as FreezeHook
from .progress import RichProgressHook as RichProgressHook, progress_display as progress_display
from .raster.prediction import RasterResult as RasterResult, predict_raster as predict_raster
from .refinement_hook import RefinementVisualizationHook as RefinementVisualizationHook
