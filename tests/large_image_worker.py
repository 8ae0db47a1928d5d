"""Label one 24-megapixel image in slide mode; print the peak memory above weights and image."""
import json

import numpy as np
import torch
from mmseg.structures import SegDataSample

import mmsparse  # noqa: F401
from mmsparse.engine.benchmark import (
    forced_selection,
    predict_time,
    scene_batch,
    thin_bands,
)
from mmsparse.engine.loading import load_model
from mmsparse.engine.machine import peak_memory

CONFIG = 'configs/sparserefine/sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'
SLIDE = dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768), seg_logits=False)
SIZE = (4000, 6000)


def main() -> None:
    """Measure the low-resolution pass alone, then the whole prediction."""
    cpu = torch.device('cpu')
    model = load_model(CONFIG, None, cpu, {'model.test_cfg': dict(_delete_=True, **SLIDE)})
    images = scene_batch(1, SIZE)
    sample = SegDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE, pad_shape=SIZE))
    batch = model.data_preprocessor(dict(inputs=list(images), data_samples=[sample]), False)
    mask = thin_bands(SIZE, 0.118)
    del images
    with torch.no_grad():
        model.low_resolution(batch['inputs'][..., :128, :128])  # what is allocated once
        low = peak_memory(lambda: model.low_resolution(batch['inputs']), cpu)
        results = []
        with forced_selection(model, mask):
            peak = peak_memory(
                lambda: results.extend(predict_time(model, batch, cpu)[1]), cpu)
    result, = results
    selected = result.selected.data[0]
    changed = result.pred_sem_seg.data.squeeze() != result.low_res_sem_seg.data.squeeze()
    print(json.dumps(dict(
        low_mib=low / 2**20, peak_mib=peak / 2**20, density=float(selected.float().mean()),
        shape=list(result.pred_sem_seg.shape), changed_outside=int((changed & ~selected).sum()),
        changed=int(np.asarray(changed).sum()))))


if __name__ == '__main__':
    main()
