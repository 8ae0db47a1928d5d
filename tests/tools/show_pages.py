"""Pages that show wrote, and models, pictures and labels for them."""
import base64
import json
import re
import zlib

import cv2
import numpy as np
import torch

from mmsparse.datasets.scenes import render_scene
from mmsparse.engine.loading import load_model
from tests.configs import config
from tests.models.tiny import refine_cfg, refined_cfg, segmentor_cfg, vary_classes

SIZE = (72, 96)
CLASSES = tuple('abcde')
BUDGET = dict(type='mmsparse.EntropySelector', alpha=.1, max_density=.25)


def write_files(folder):
    """Configs with weights (NAME.py, NAME.pth), two pictures, their labels."""
    (folder / 'labels').mkdir()
    for i, name in enumerate('ab'):
        image, label = render_scene(i, SIZE)
        cv2.imwrite(str(folder / f'{name}.png'), image)
        cv2.imwrite(str(folder / 'labels' / f'{name}.png'), np.where(label < 5, label, 255))
    image = torch.from_numpy(cv2.imread(str(folder / 'a.png')).transpose(2, 0, 1).copy())
    for name, model in dict(
            refine=refine_cfg(alpha=.5), budget=refine_cfg(selector=BUDGET), refined=refined_cfg(),
            plain=segmentor_cfg()).items():
        path = folder / f'{name}.py'
        config(model=model, dataset='mmseg.BaseSegDataset', metainfo=dict(classes=CLASSES),
               reduce_zero_label=name == 'budget').dump(path)
        built = load_model(path, None, 'cpu')
        if name != 'refined':
            vary_classes(built, image)
        torch.save(dict(state_dict=built.state_dict(), meta=dict(dataset_meta=dict(
            classes=CLASSES))), path.with_suffix('.pth'))
    return folder


def read_page(path):
    """The data in a page, its maps as arrays."""
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>',
                                path.read_text(encoding='utf-8'), re.S)[1])
    contents = {name: zlib.decompress(base64.b64decode(text))
                for name, text in data['planes'].items()}
    data['planes'] = {name: np.frombuffer(content, np.uint8).reshape(data['height'], data['width'])
                      for name, content in contents.items()}
    return data
