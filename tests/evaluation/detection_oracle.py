"""AP of masks from the definitions: dense masks, loops, no run-length codes, no pycocotools.

An image is a dict: ``size``, and ``truths`` and ``detections``, lists of dicts with ``mask`` (bool
``[H, W]``) and ``category``; a detection also has ``score``, a truth may be a ``crowd``; by LVIS,
``negative`` and ``not_exhaustive`` are sets of categories.
"""
import math

import numpy as np

AREAS = dict(mAP=(0, 1e10), mAP_s=(0, 32**2), mAP_m=(32**2, 96**2), mAP_l=(96**2, 1e10))
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]


def erode(mask):
    """A pixel stays if it and its eight neighbors are in the mask; around the image is nothing."""
    padded = np.pad(mask, 1)
    h, w = mask.shape
    return np.logical_and.reduce(
        [padded[y:y + h, x:x + w] for y in range(3) for x in range(3)])


def boundary(mask, ratio=0.02):
    inner = mask
    for _ in range(max(1, round(ratio * math.sqrt(mask.shape[0]**2 + mask.shape[1]**2)))):
        inner = erode(inner)
    return mask & ~inner


def ratio(detection, truth, crowd):
    union = detection if crowd else detection | truth
    return (detection & truth).sum() / max(union.sum(), 1)


def overlap(detection, truth, kind, width=0.02):
    crowd = truth.get('crowd', False)
    masks = ratio(detection['mask'], truth['mask'], crowd)
    if kind == 'segm' or crowd:
        return masks
    edges = boundary(detection['mask'], width), boundary(truth['mask'], width)
    return min(masks, ratio(*edges, crowd=False))


def matches(image, category, threshold, area, kind, federated, width):
    """Of one image: scores and kinds of its detections, and how many objects there are to find."""
    truths = [t for t in image['truths'] if t['category'] == category]
    for t in truths:
        t['skip'] = t.get('crowd', False) or not area[0] <= t['mask'].sum() <= area[1]
    every = sorted(image['detections'], key=lambda d: -d['score'])
    if federated:
        every = [d for d in every[:300] if d['mask'].any()]
    detections = [d for d in every if d['category'] == category]
    if federated and not truths and category not in image['negative']:
        return [], 0
    taken, found = set(), []
    for d in detections:
        best, best_skip = None, None
        for skip in (False, True):  # an object that counts is preferred to one that does not
            allowed = [i for i, t in enumerate(truths) if t['skip'] == skip
                       and (i not in taken or t.get('crowd', False))]
            values = [(overlap(d, truths[i], kind, width), i) for i in allowed]
            values = [v for v in values if v[0] >= threshold - 1e-12]
            if values:
                best, best_skip = max(values)[1], skip
                break
        if best is not None:
            taken.add(best)
            found.append((d['score'], 'skip' if best_skip else 'hit'))
        elif not area[0] <= d['mask'].sum() <= area[1] or (
                federated and category in image['not_exhaustive']):
            found.append((d['score'], 'skip'))
        else:
            found.append((d['score'], 'miss'))
    return found, sum(not t['skip'] for t in truths)


def average_precision(found, count):
    """Mean over recall 0, 0.01, ... 1 of the best precision at that recall or more."""
    found = [kind for _, kind in sorted(found, key=lambda f: -f[0]) if kind != 'skip']
    points, hits = [], 0
    for i, kind in enumerate(found, 1):
        hits += kind == 'hit'
        points.append((hits / count, hits / i))
    return float(np.mean([max([p for r, p in points if r >= i / 100 - 1e-12], default=0)
                          for i in range(101)]))


def figures(images, categories, kind, federated=False, width=0.02):
    """The six figures of COCO, to three digits."""
    result = {}
    for name, area in AREAS.items():
        table = []
        for category in categories:
            row = []
            for threshold in THRESHOLDS:
                parts = [matches(image, category, threshold, area, kind, federated, width)
                         for image in images]
                count = sum(part[1] for part in parts)
                if count:
                    row.append(average_precision([f for part in parts for f in part[0]], count))
            if row:
                table.append(row)
        result[name] = np.mean(table) if table else -1
        if name == 'mAP':
            result['mAP_50'] = np.mean([row[0] for row in table]) if table else -1
            result['mAP_75'] = np.mean([row[5] for row in table]) if table else -1
    return {f'{kind}_{name}': three_digits(value) for name, value in result.items()}


def three_digits(value):
    return round(float(value), 3)
