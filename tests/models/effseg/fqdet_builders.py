"""FQDet's configs: parsed, built without memory, or thin."""
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmsparse.engine.config import read_config
from tests.models.effseg.builders import FOLDER, narrow

SECOND = 'fqdetv2-effseg_r50_fpn_1x_coco'
PANOPTIC = 'fqdet-effseg_r50_fpn_1x_coco-panoptic'


def config(name):
    init_default_scope('mmdet')
    return read_config(str(FOLDER / f'{name}.py'))


def thin(name, queries=40, by=4):
    """The config's model on a ResNet-18, a fourth as wide, with few queries."""
    cfg = config(name)
    narrow(cfg.model, by)
    cfg.model.backbone.update(depth=18, init_cfg=None)
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    cfg.model.rpn_head.num_queries = queries
    cfg.model.roi_head.bbox_head.num_layers = 2
    cfg.model.test_cfg.rcnn.max_per_img = 20
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    # the start is that of init_weights, but for the checkpoint
    model.roi_head.init_weights()
    return model


def on_meta(name):
    with torch.device('meta'):
        return MODELS.build(config(name).model)
