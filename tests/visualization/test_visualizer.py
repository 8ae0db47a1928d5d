"""The panels through mmseg's visualizer interface, as `mim test --show-dir` uses it."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.registry import VISUALIZERS
from mmsparse.visualization import refinement_panels

META = dict(classes=('road', 'pole'), palette=[[10, 20, 30], [40, 50, 60]])


@pytest.fixture
def visualizer(tmp_path):
    visualizer = VISUALIZERS.build(dict(
        type='mmsparse.RefinementVisualizer', name=str(tmp_path), save_dir=str(tmp_path),
        vis_backends=[dict(type='LocalVisBackend')]))
    visualizer.dataset_meta = META
    return visualizer


def sample(**fields):
    maps = {name: PixelData(data=torch.zeros(1, 32, 48, dtype=dtype))
            for name, dtype in fields.items()}
    return SegDataSample(**maps)


def read(tmp_path):
    file, = tmp_path.rglob('*.png')
    return cv2.imread(str(file))


def test_a_refined_result_is_drawn_as_panels(visualizer, tmp_path):
    refined = sample(pred_sem_seg=torch.int64, low_res_sem_seg=torch.int64, selected=torch.bool,
                     gt_sem_seg=torch.uint8)
    visualizer.add_datasample('test_0.png', np.zeros((32, 48, 3), np.uint8), refined)
    assert read(tmp_path).shape[1] > 1000


def test_without_ground_truth_there_are_fewer_panels(visualizer, tmp_path):
    refined = sample(pred_sem_seg=torch.int64, low_res_sem_seg=torch.int64, selected=torch.bool)
    files = [tmp_path / 'a.png', tmp_path / 'b.png']
    visualizer.add_datasample('', np.zeros((32, 48, 3), np.uint8), refined, out_file=str(files[0]))
    refined.gt_sem_seg = PixelData(data=torch.zeros(1, 32, 48, dtype=torch.uint8))
    visualizer.add_datasample('', np.zeros((32, 48, 3), np.uint8), refined, out_file=str(files[1]))
    without, with_label = (cv2.imread(str(f)) for f in files)
    assert without.shape[0] < with_label.shape[0]


def test_a_score_is_drawn_under_its_name(tmp_path, monkeypatch):
    """And the picture can be asked for afterwards."""
    visualizer = VISUALIZERS.build(dict(
        type='mmsparse.RefinementVisualizer', name=f'{tmp_path}_chance', score_name='Chance'))
    visualizer.dataset_meta = META
    seen = []
    monkeypatch.setattr('mmsparse.visualization.visualizer.refinement_panels',
                        lambda *maps, **options: (seen.append(options),
                                                  refinement_panels(*maps, **options))[1])
    refined = sample(pred_sem_seg=torch.int64, low_res_sem_seg=torch.int64, selected=torch.bool)
    image = np.zeros((32, 48, 3), np.uint8)
    visualizer.add_datasample('', image, refined)
    without = visualizer.get_image().shape
    refined.selection_score = PixelData(data=torch.rand(1, 32, 48))
    visualizer.add_datasample('', image, refined)
    assert visualizer.get_image().shape[0] > without[0]
    assert seen[0]['score'] is None and seen[1]['score'].shape == (32, 48)
    assert seen[1]['score_name'] == 'Chance'


def test_any_other_result_is_drawn_as_mmseg_draws_it(visualizer, tmp_path):
    visualizer.add_datasample('test_0.png', np.zeros((32, 48, 3), np.uint8),
                              sample(pred_sem_seg=torch.int64), draw_gt=False)
    assert read(tmp_path).shape == (32, 48, 3)
