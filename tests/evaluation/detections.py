"""Detections and truths as COCO writes them, and figures of a metric."""
import json

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco

CLASSES = ('cat', 'dog', 'cow')


def encode(mask):
    return coco.encode(np.asfortranarray(np.asarray(mask, np.uint8)))


def square(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def box_of(mask):
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def annotation_file(path, images, classes=CLASSES, **extra):
    """The file of COCO's format for images as the oracle takes them; areas are those of masks."""
    content = dict(images=[], annotations=[], categories=[
        dict(id=i, name=name) for i, name in enumerate(classes, 1)])
    for i, image in enumerate(images, 1):
        height, width = image['size']
        content['images'].append(dict(
            id=i, height=height, width=width, file_name=f'{i}.jpg',
            **{key: sorted(image[name]) for key, name in extra.items()}))
        for truth in image['truths']:
            left, top, right, bottom = box_of(truth['mask'])
            code = encode(truth['mask'])
            annotation = dict(
                id=len(content['annotations']) + 1, image_id=i, category_id=truth['category'],
                bbox=[left, top, right - left, bottom - top], area=int(truth['mask'].sum()),
                segmentation=code | dict(counts=code['counts'].decode()))
            if not extra:
                annotation['iscrowd'] = int(truth.get('crowd', False))
            content['annotations'].append(annotation)
    path.write_text(json.dumps(content))
    return str(path)


def samples(images, *, as_codes=False, mask_scores=False, label=lambda category: category - 1):
    """Predictions as a detector of mmdet gives them."""
    for i, image in enumerate(images, 1):
        found = image['detections']
        stack = np.stack([d['mask'] for d in found]) if found else np.zeros((0, *image['size']))
        scores = torch.tensor([d['score'] for d in found], dtype=torch.float64)
        sample = DetDataSample(metainfo=dict(img_id=i, ori_shape=image['size']))
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([box_of(m) for m in stack], dtype=torch.float32).view(-1, 4),
            labels=torch.tensor([label(d['category']) for d in found], dtype=torch.int64),
            scores=torch.ones_like(scores) if mask_scores else scores)
        if mask_scores:
            sample.pred_instances.mask_scores = scores
        sample.pred_instances.masks = ([encode(m) for m in stack] if as_codes else
                                       torch.from_numpy(stack).bool())
        yield sample


def run(predictions, *metrics, classes=CLASSES):
    init_default_scope('mmdet')
    evaluator = Evaluator(list(metrics))
    evaluator.dataset_meta = dict(classes=classes)
    predictions = list(predictions)
    for sample in predictions:
        evaluator.process([sample])
    return evaluator.evaluate(len(predictions))


def blob(rng, size, reach):
    """An ellipse, often across the border."""
    y, x = np.mgrid[:size[0], :size[1]]
    cy, cx = rng.random(2) * size
    ry, rx = 2 + rng.random(2) ** 2 * reach
    return ((y - cy) / ry)**2 + ((x - cx) / rx)**2 < 1


def shifted(rng, mask, most):
    """A detection: the mask moved a little, sometimes with a piece cut off."""
    dy, dx = rng.integers(-most, most + 1, 2)
    moved = np.zeros_like(mask)
    h, w = mask.shape
    moved[max(dy, 0):h + min(dy, 0), max(dx, 0):w + min(dx, 0)] = mask[
        max(-dy, 0):h + min(-dy, 0), max(-dx, 0):w + min(-dx, 0)]
    if rng.random() < 0.3:
        moved[:, rng.integers(w):] = False
    return moved


def random_images(seed, count=4, sizes=((60, 90), (130, 101), (33, 47)), per_image=6):
    """Objects of three classes and of all sizes, some a crowd; good, bad and double detections."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(count):
        size = sizes[i % len(sizes)]
        truths = [dict(mask=blob(rng, size, max(size) * 0.7), category=int(rng.integers(1, 4)),
                       crowd=bool(rng.random() < 0.15)) for _ in range(per_image)]
        truths = [t for t in truths if t['mask'].any()]
        found = [dict(mask=shifted(rng, t['mask'], 1), category=t['category'],
                      score=float(rng.random()))
                 for t in truths for _ in range(rng.integers(1, 3))]
        found += [dict(mask=blob(rng, size, 30), category=int(rng.integers(1, 4)),
                       score=float(rng.random()) / 2) for _ in range(4)]
        found.append(dict(mask=np.zeros(size, bool), category=1, score=float(rng.random())))
        images.append(dict(size=size, truths=truths, detections=found))
    return images
