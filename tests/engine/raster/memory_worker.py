"""Label a made raster of SIDE x SIDE pixels with a small model; print peak memory and time.

``python -m tests.engine.raster.memory_worker plain 20000`` (or ``refined``), from the root.
"""
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from mmsparse.engine.machine import peak_memory
from mmsparse.engine.raster.prediction import predict_raster
from tests.engine.raster.builders import build, near_cfg, refining_cfg

BLOCK = 512


def make_raster(path: Path, side: int) -> None:
    """Smooth noise, block by block."""
    g = np.random.default_rng(0)
    with rasterio.open(
            path, 'w', driver='GTiff', height=side, width=side, count=3, dtype='uint8', tiled=True,
            blockxsize=BLOCK, blockysize=BLOCK, compress='deflate', bigtiff='IF_SAFER',
            crs='EPSG:32633', transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)) as raster:
        for top in range(0, side, BLOCK):
            for left in range(0, side, BLOCK):
                small = torch.from_numpy(g.random((1, 3, BLOCK // 8, BLOCK // 8)))
                block = torch.nn.functional.interpolate(small, scale_factor=8, mode='bilinear')[0]
                height, width = min(BLOCK, side - top), min(BLOCK, side - left)
                raster.write((255 * block).byte().numpy()[:, :height, :width],
                             window=Window(left, top, width, height))


def main() -> None:
    """Measure."""
    kind, side = sys.argv[1], int(sys.argv[2])
    model = build(dict(plain=near_cfg, refined=refining_cfg)[kind]())
    with TemporaryDirectory() as folder:
        source, target = Path(folder, 'p.tif'), Path(folder, 'o.tif')
        make_raster(source, side)
        results, start = [], time.perf_counter()
        peak = peak_memory(lambda: results.append(predict_raster(model, source, target)),
                           torch.device('cpu'))
        seconds = time.perf_counter() - start
        with rasterio.open(target) as raster:
            counts = sum(np.bincount(raster.read(1, window=part).ravel(), minlength=256)
                         for _, part in raster.block_windows(1))
    status = Path('/proc/self/status').read_text()
    total = int(next(x for x in status.splitlines() if x.startswith('VmHWM')).split()[1])
    print(json.dumps(dict(
        kind=kind, side=side, peak_mib=peak / 2**20, total_mib=total / 2**10, seconds=seconds,
        windows=results[0].windows, exact=results[0].exact, labeled=int(counts[:5].sum()))))


if __name__ == '__main__':
    main()
