"""Samples of a refined segmentor."""
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

SIZE = (20, 40)


def result(share, path=''):
    """A sample with the first ``share`` of its rows selected."""
    empty = torch.zeros(1, *SIZE, dtype=torch.long)
    selected = torch.zeros(1, *SIZE, dtype=torch.bool)
    selected[:, :round(share * SIZE[0])] = True
    sample = SegDataSample(metainfo=dict(img_path=path), pred_sem_seg=PixelData(data=empty),
                           low_res_sem_seg=PixelData(data=empty))
    sample.selected = PixelData(data=selected)
    return sample
