"""Refine one 768x1024 image within a bound in MiB; print the peak, the tiles, the difference."""
import sys

import torch

import mmsparse  # noqa: F401
from mmsparse.engine.machine import peak_memory
from mmsparse.models.crm import refiner
from tests.models.test_crm import build, picture


def main() -> None:
    """Without a bound, then with it."""
    limit = int(sys.argv[1]) * 2**20
    model, (image, mask) = build(thin=False), picture((768, 1024))
    expected = model.refine(image, mask).mask
    model.refine(image[..., :128, :128], mask[..., :128, :128])  # what is allocated once
    model.test_cfg.max_bytes = limit
    count, plan, found = [], refiner.plan_tiles, []

    def counted(*args):
        tiles = plan(*args)
        count.append(len(tiles[0]))
        return tiles

    refiner.plan_tiles = counted
    peak = peak_memory(lambda: found.append(model.refine(image, mask).mask), torch.device('cpu'))
    print(peak / 2**20, max(count), float((found[0] - expected).abs().max()))


if __name__ == '__main__':
    main()
