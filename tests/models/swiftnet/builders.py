"""SwiftNet's configs without pretrained weights, and images of blocks of one color."""
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

FOLDER = Path(__file__).parents[3] / 'configs' / 'swiftnet'

R18 = 'swiftnet-ss_r18_1xb14-53k_cityscapes-768x768'
PYR3 = 'swiftnet-pyr3_r18_1xb14-53k_cityscapes-768x768'
SIZE = (96, 130)


def load(name):
    return Config.fromfile(FOLDER / f'{name}.py')


def without_weights(cfg):
    """Nothing is fetched."""
    if isinstance(cfg, dict):
        if isinstance(cfg.get('init_cfg'), dict) and cfg['init_cfg'].get('type') == 'Pretrained':
            cfg['init_cfg'] = None
        for value in cfg.values():
            without_weights(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            without_weights(value)
    return cfg


def build(cfg):
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    return revert_sync_batchnorm(MODELS.build(without_weights(cfg.model)))


def batch(model, classes=5, count=2, weights=True, size=SIZE):
    images, samples = [], []
    for seed in range(count):
        g = torch.Generator().manual_seed(seed)
        label = torch.randint(classes, (1, 6, 8), generator=g)
        label = label.repeat_interleave(16, 1).repeat_interleave(17, 2)[..., :size[0], :size[1]]
        image = (label * 40).repeat(3, 1, 1) + torch.randint(9, (3, *size), generator=g)
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        sample.gt_sem_seg = PixelData(data=label)
        if weights:
            sample.gt_weight_map = PixelData(data=torch.ones(1, *size))
        images.append(image.to(torch.uint8))
        samples.append(sample)
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
