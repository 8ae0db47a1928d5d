"""The hook in real validations and tests, and in two processes: what reaches which backend."""
import json
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.engine.hooks import SegVisualizationHook
from torch.utils.data import DataLoader

from mmsparse.engine.refinement_hook import (
    RefinementVisualizationHook,
    density,
    histogram,
    in_dataset_order,
    summary,
)
from mmsparse.registry import HOOKS, VISUALIZERS
from tests.engine.samples import SIZE, result

ROOT = Path(__file__).parents[2]
META = dict(classes=('road', 'pole'), palette=[[10, 20, 30], [40, 50, 60]])
DENSITIES = [.5, .1, .3, .2]


class Refiner(BaseModel):
    """Trains a number; answers with the samples it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return data_samples if mode == 'predict' else dict(loss=self.weight.sum())


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return dict(nothing=0.)


def collate(items):
    return dict(inputs=torch.ones(1), data_samples=items)


@pytest.fixture
def run(tmp_path):
    """Runs a training of 4 iterations that validates twice, and a test; the runner."""

    def run(selected=True, backends=('LocalVisBackend', ), train=True, **hook):
        path = str(tmp_path / 'picture.png')
        cv2.imwrite(path, np.zeros((*SIZE, 3), np.uint8))
        samples = [result(share, path) for share in DENSITIES]
        if not selected:
            for sample in samples:
                del sample.selected
        loader = DataLoader(samples, batch_size=2, collate_fn=collate)
        visualizer = VISUALIZERS.build(dict(
            type='mmsparse.RefinementVisualizer', name=str(tmp_path), save_dir=str(tmp_path),
            vis_backends=[dict(type=name) for name in backends]))
        visualizer.dataset_meta = META
        runner = Runner(
            Refiner(), work_dir=str(tmp_path), val_dataloader=loader,
            train_dataloader=loader if train else dict(dataset=dict(type='NotOnThisMachine')),
            test_dataloader=loader, val_evaluator=Evaluator(Nothing()),
            test_evaluator=Evaluator(Nothing()),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2),
            val_cfg=dict(), test_cfg=dict(), optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
            default_hooks=dict(
                logger=None, checkpoint=None,
                visualization=dict(type='mmsparse.RefinementVisualizationHook') | hook),
            visualizer=visualizer)
        if train:
            runner.train()
        runner.test()
        return runner

    return run


def scalars(tmp_path):
    lines = (tmp_path / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [record for record in map(json.loads, lines) if 'selector/density_mean' in record]


EXPECTED = {'selector/density_mean': .275, 'selector/density_max': .5,
            'selector/density_p95': float(np.quantile(DENSITIES, .95))}


def test_scalars_and_pictures_of_every_epoch(run, tmp_path):
    """At iterations 2 and 4; the test follows the training, so at 4 too."""
    run(draw=True, interval=1)
    assert [record.pop('step') for record in scalars(tmp_path)] == [2, 4, 4]
    for record in scalars(tmp_path):
        assert {name: record[name] for name in EXPECTED} == pytest.approx(EXPECTED)
    pictures = {path.name for path in (tmp_path / 'vis_data' / 'vis_image').iterdir()}
    assert pictures == {'val_density_2.png', 'val_density_4.png', 'test_density_4.png',
                        'val_picture.png_2.png', 'val_picture.png_4.png',
                        'test_picture.png_4.png'}


def test_a_test_on_its_own_needs_no_training_set(run, tmp_path):
    run(draw=True, interval=1, train=False)
    assert [record['step'] for record in scalars(tmp_path)] == [0]
    assert (tmp_path / 'vis_data' / 'vis_image' / 'test_picture.png_0.png').is_file()


def test_without_draw_there_are_scalars_only(run, tmp_path):
    """And no word that the hook does nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='The draw is False')
        run()
    assert len(scalars(tmp_path)) == 3
    assert not (tmp_path / 'vis_data' / 'vis_image').exists()


def test_interval_is_of_batches_as_in_mmseg(run, monkeypatch):
    """Second of two batches only, while every image counts for the density."""
    drawn = []
    monkeypatch.setattr('mmsparse.visualization.RefinementVisualizer.add_datasample',
                        lambda self, name, image, **options: drawn.append((name, options)))
    run(draw=True, interval=2)
    assert [name for name, _ in drawn] == ['val_picture.png'] * 4 + ['test_picture.png'] * 2
    assert [options['step'] for _, options in drawn] == [2, 2, 4, 4, 4, 4]
    shares = [density(options['data_sample']) for _, options in drawn[:2]]
    assert shares == pytest.approx(DENSITIES[2:])


def test_any_other_model_is_drawn_and_not_measured(run, tmp_path):
    run(selected=False, draw=True, interval=1)
    pictures = {path.name for path in (tmp_path / 'vis_data' / 'vis_image').iterdir()}
    assert pictures == {'val_picture.png_2.png', 'val_picture.png_4.png', 'test_picture.png_4.png'}
    lines = tmp_path / 'vis_data' / 'scalars.json'
    assert not lines.exists() or not scalars(tmp_path)


def test_tensorboard_gets_the_same(run, monkeypatch):
    """Through mmengine's backend, on a writer that notes what it is told."""
    told = []

    class SummaryWriter:
        def __init__(self, folder):
            pass

        def add_scalar(self, name, value, step):
            assert isinstance(value, float)
            told.append((name, step))

        def add_image(self, name, image, step, dataformats):
            assert dataformats == 'HWC' and image.dtype == np.uint8 and image.shape[2] == 3
            told.append((name, step))

        def add_text(self, *args):
            pass

        def close(self):
            pass

    fake = types.ModuleType('torch.utils.tensorboard')
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', fake)
    run(draw=True, interval=100, backends=('TensorboardVisBackend', ))
    told = [entry for entry in told if 'density' in entry[0]]
    epoch = ['selector/density_mean', 'selector/density_p95', 'selector/density_max']
    assert told == [(name, step) for step, mode in ((2, 'val'), (4, 'val'), (4, 'test'))
                    for name in (*epoch, f'{mode}_density')]


def test_an_epoch_that_failed_is_forgotten(run):
    hook, = (h for h in run()._hooks if isinstance(h, RefinementVisualizationHook))
    hook._densities = [1.]
    hook._before_epoch(None, mode='val')
    assert hook._densities == []


def test_a_host_with_steps_of_its_own_changes_nothing(run, tmp_path):
    """As mmseg's fork has them; here below the hook whatever is installed."""
    class Fork(SegVisualizationHook):
        def after_val_iter(self, runner, batch_idx, data_batch, outputs):
            raise AssertionError

        after_test_iter = after_val_iter

    class OnFork(RefinementVisualizationHook, Fork):
        pass

    run(type=OnFork)
    assert len(scalars(tmp_path)) == 3


def test_training_is_left_alone():
    hook = HOOKS.build(dict(type='mmsparse.RefinementVisualizationHook', draw=True))
    hook.after_train_iter(None, 0, {}, dict(loss=1))
    hook.after_train_epoch(None)
    assert hook._densities == []


def test_arguments_are_mmsegs():
    hook = HOOKS.build(dict(type='mmsparse.RefinementVisualizationHook', wait_time=1.,
                            backend_args=dict(backend='local')))
    assert hook.wait_time == 1 and hook.backend_args == dict(backend='local')
    with pytest.raises(TypeError, match='drawing'):
        HOOKS.build(dict(type='mmsparse.RefinementVisualizationHook', drawing=True))


@pytest.mark.parametrize('parts, size, expected', [
    ([[0, 1, 2]], 3, [0, 1, 2]),
    ([[0, 2, 4], [1, 3, 0]], 5, [0, 1, 2, 3, 4]),  # the sampler fills up from the start
    ([[0, 2, 4], [1, 3]], 5, [0, 1, 2, 3, 4]),  # a sampler that does not fill up
    ([[], []], 5, []),
])
def test_parts_are_put_together_as_the_sampler_dealt_them_out(parts, size, expected):
    assert in_dataset_order(parts, size) == expected


@pytest.mark.parametrize('densities', [[0.], [0., 1.], [.05, .1, .1001]])
def test_histogram_is_a_picture(densities):
    picture = histogram(densities, summary(densities))
    assert picture.shape == (400, 700, 3) and picture.dtype == np.uint8
    assert picture.flags.c_contiguous and len(np.unique(picture)) > 2


def test_histogram_counts_every_image(monkeypatch):
    from matplotlib.axes import Axes
    counted = []
    hist = Axes.hist
    monkeypatch.setattr(Axes, 'hist', lambda self, *args, **options: (
        counted.append(hist(self, *args, **options)), counted[-1])[1])
    for densities in ([0.] * 3, [1., .3, .999], [.02, .0200001, .01]):
        histogram(densities, summary(densities))
        assert counted[-1][0].sum() == len(densities)


@pytest.mark.slow
def test_two_processes_are_written_once(tmp_path):
    """Rank 0 writes what both have, without the image that filled up the last turn."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
               '-m', 'tests.engine.density_worker', str(tmp_path)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert second == []
    (scalars, step), (name, shape, _) = first
    assert scalars == pytest.approx({'selector/density_mean': .3, 'selector/density_max': .5,
                                     'selector/density_p95': np.quantile([.5, .1, .3], .95)})
    assert step == 7 and name == 'test_density' and shape == [400, 700, 3]
