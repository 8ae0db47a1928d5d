"""Files of a refiner small enough for tests, and pictures of noise."""
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmsparse.engine.loading import load_model

CONFIG = Path(__file__).parents[3] / 'configs/crm/crm_r50_2xb6-45k_saliency-224x224.py'
THIN = {'model.backbone.base_channels': 4, 'model.backbone.stem_channels': 4,
        'model.backbone.init_cfg': None, 'model.neck.in_channels': (4, 16, 64)}


def write_refiner(folder, change=lambda model: None, **test_cfg):
    """``crm.py`` and ``crm.pth`` in a folder; the model, as ``change`` left it."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(THIN | {f'model.test_cfg.{key}': v for key, v in test_cfg.items()})
    cfg.dump(folder / 'crm.py')
    torch.manual_seed(0)
    model = load_model(folder / 'crm.py', None, 'cpu')
    change(model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'crm.pth')
    return model


def write_noise(folder, sizes):
    """Pictures by their names."""
    g = np.random.default_rng(0)
    for name, size in sizes.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(folder / name), g.integers(0, 256, (*size, 3), dtype=np.uint8))
