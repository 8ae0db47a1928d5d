from .networks import NotExportable as NotExportable, exported as exported
from .onnx_file import Agreement as Agreement, export_onnx as export_onnx
