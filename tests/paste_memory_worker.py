"""Paste and encode instances of all sizes on one image; print the memory above the arguments."""
import json
import sys

import torch
from pycocotools import mask as coco

from mmsparse.engine.machine import peak_memory
from mmsparse.models.effseg.paste import paste_masks


def main() -> None:
    """Every tenth box is as large as the image, the others are of all sizes."""
    count, height, width, mib = map(int, sys.argv[1:5])
    g = torch.Generator().manual_seed(0)
    size = torch.tensor([width, height])
    side = size * torch.rand(count, 1, generator=g)**2 + 1
    side[::10] = size.float()
    low = torch.rand(count, 2, generator=g) * (size - side)
    boxes = torch.cat([low, low + side], 1)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 112)] * 2, indexing='ij')
    disc = 1 - 0.5 * (x**2 + y**2)
    probabilities = disc.expand(count, 1, 112, 112).clone()
    paste_masks(probabilities[:1], boxes[:1] / 50, (height // 50, width // 50), encode=True)
    results = []
    peak = peak_memory(lambda: results.append(
        paste_masks(probabilities, boxes, (height, width), encode=True, max_bytes=mib * 2**20)),
        torch.device('cpu'))
    codes = results[0].masks
    print(json.dumps(dict(mib=peak / 2**20, codes=len(codes),
                          largest=max(int(coco.area(code)) for code in codes))))


if __name__ == '__main__':
    main()
