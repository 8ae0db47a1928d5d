"""EffSeg's configs on a ResNet-18, and images with rectangles."""
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmsparse.engine.config import read_config

FOLDER = Path(__file__).parents[3] / 'configs' / 'effseg'

HOSTS = [f'effseg_{host}_r50_fpn_1x_coco'
         for host in ('mask-rcnn', 'cascade-mask-rcnn', 'queryinst', 'sparse-rcnn')]


DEFAULTS = dict(  # what our parts leave at 256
    EffSegMaskHead=('in_channels', 'query_channels'), RefineMaskHead=('in_channels', ),
    QueryMaskHead=('query_channels', ), QueryPointHead=('query_channels', ),
    QueryRefineMaskHead=('query_channels', ), FQDetRPNHead=('in_channels', ),
    FQDetBBoxHead=('in_channels', ), DeformableEncoder=('channels', ))


def narrow(model, by=4):
    """Divide every number of channels from 256 on in a model's config, in place."""
    for key, value in model.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                narrow(part, by)
        if key.endswith(('channels', 'feature_channel')) and isinstance(value, int):
            model[key] = value // by if value >= 256 else value
    for key in DEFAULTS.get(str(model.get('type')).removeprefix('mmsparse.'), ()):
        model.setdefault(key, 256 // by)


def thin(name, by=4):
    """The config's model on a ResNet-18, a fourth as wide, with few proposals."""
    cfg = read_config(str(FOLDER / f'{name}.py'))
    init_default_scope('mmdet')
    narrow(cfg.model, by)
    cfg.model.backbone.update(depth=18, init_cfg=None)
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    if cfg.model.train_cfg.rpn is not None:
        cfg.model.train_cfg.rpn_proposal.max_per_img = 60
        cfg.model.test_cfg.rpn.max_per_img = 60
        cfg.model.test_cfg.rcnn.max_per_img = 20  # of the others it is the number of queries
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if 'Sparse' in type(model.roi_head).__name__:
        model.rpn_head.init_weights()  # random boxes, or steps from them, may be inside out
        for head in model.roi_head.bbox_head:
            torch.nn.init.zeros_(head.fc_reg.weight)
            torch.nn.init.zeros_(head.fc_reg.bias)
    return model


def batch(objects=(2, 1), size=(96, 128)):
    """Images with rectangles of another color, one per object."""
    rng = np.random.default_rng(0)
    data = dict(inputs=[], data_samples=[])
    for count in objects:
        image = rng.integers(0, 60, (3, *size), dtype=np.uint8)
        masks, boxes = np.zeros((count, *size), np.uint8), []
        for i in range(count):
            x, y = 10 + 50 * i, 20 + 15 * i
            masks[i, y:y + 40, x:x + 45] = 1
            image[:, y:y + 40, x:x + 45] += 150
            boxes.append([x, y, x + 45, y + 40])
        sample = DetDataSample(metainfo=dict(
            img_shape=size, ori_shape=(size[0] * 2, size[1] * 2), scale_factor=(0.5, 0.5),
            batch_input_shape=size, pad_shape=size))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            labels=torch.zeros(count, dtype=torch.long), masks=BitmapMasks(masks, *size))
        data['inputs'].append(torch.from_numpy(image))
        data['data_samples'].append(sample)
    return data


def losses_of(model, data):
    data = model.data_preprocessor(data, True)
    losses = model.loss(data['inputs'], data['data_samples'])
    return {k: sum(v) if isinstance(v, list) else v for k, v in losses.items()}
