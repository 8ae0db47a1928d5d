from .prediction import (
    WINDOW as WINDOW,
    RasterResult as RasterResult,
    predict_raster as predict_raster,
)
