"""The comparison's counting, by hand and with models that are right or wrong by construction."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.utils import register_all_modules
from torch import nn

from mmsparse.engine import compare
from mmsparse.engine.comparison import class_areas, mean_known


def test_class_areas_by_hand():
    counted = class_areas(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]), 2, 255)
    assert counted.tolist() == [[1, 1], [2, 2], [2, 1], [1, 2]]


def test_mean_known():
    assert mean_known([1., math.nan, 3.]) == 2
    assert math.isnan(mean_known([math.nan]))


class Oracle(nn.Module):
    """Answers with the truth, or with class 0 everywhere; counts its calls."""

    def __init__(self, right, ignore_index=255):
        super().__init__()
        self.decode_head = SimpleNamespace(ignore_index=ignore_index)
        self.right = right
        self.calls = 0

    def test_step(self, batch):
        self.calls += 1
        result, = batch['data_samples']
        truth = result.gt_sem_seg.data
        wrong = torch.zeros_like(truth)
        result.pred_sem_seg = PixelData(data=truth if self.right else wrong)
        if self.right:
            result.low_res_sem_seg = PixelData(data=wrong)
            result.selected = PixelData(data=truth != 0)
        return [result]


def test_compare_right_with_wrong():
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    loader = ConfigDict(
        batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(
            type='mmsparse.SceneDataset', length=3, size=(64, 128),
            pipeline=[dict(type='mmsparse.RenderScene'), dict(type='PackSegInputs')]))
    models = dict(right=Oracle(True), wrong=Oracle(False))
    seen = []
    scores = compare(models, dict(right=loader, wrong=loader),
                     lambda name, index, batch, result: seen.append((name, index)))
    assert scores['right'].miou == scores['right'].small_iou == pytest.approx(100)
    assert scores['wrong'].small_iou == 0 < scores['wrong'].iou['road']
    assert scores['right'].recall == scores['right'].precision == 1
    assert 0 < scores['right'].density < 1
    assert math.isnan(scores['wrong'].recall)
    assert all(s.milliseconds > 0 for s in scores.values())
    # in turns, and once more for the first image
    assert seen == [('right', 0), ('wrong', 0), ('wrong', 1), ('right', 1), ('right', 2),
                    ('wrong', 2)]
    assert all(m.calls == 4 for m in models.values())
