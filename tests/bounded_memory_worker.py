"""Refine one 768x1024 image within a bound in MiB.

Prints the peak, the tiles, the difference that they make, and that at full size alone, from the
same mask: there a random network cannot amplify it from scale to scale.
"""
import sys

import torch

import mmsparse  # noqa: F401
from mmsparse.engine.machine import peak_memory
from mmsparse.models.crm import refiner
from tests.models.crm.builders import build, picture


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
    model.test_cfg.scales = (1.0,)
    tiled = model.refine(image, mask).mask
    model.test_cfg.max_bytes = None
    whole = model.refine(image, mask).mask
    print(peak / 2**20, max(count), *(float((a - b).abs().max()) for a, b in (
        (found[0], expected), (tiled, whole))))


if __name__ == '__main__':
    main()
