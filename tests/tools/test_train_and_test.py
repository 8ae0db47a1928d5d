"""``tools/train.py`` and ``tools/test.py``: mmseg's arguments, fast help, one-line errors."""

import ast
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from PIL import Image

from mmsparse import evaluation

MMSEG_TRAIN = ['--work-dir', '--resume', '--amp', '--cfg-options', '--launcher', '--local_rank',
               '--local-rank']
MMSEG_TEST = ['--work-dir', '--out', '--show', '--show-dir', '--wait-time', '--cfg-options',
              '--launcher', '--tta', '--local_rank', '--local-rank']


def tool(root, name, *arguments, cwd=None):
    return subprocess.run([sys.executable, '-W', 'ignore', str(root / 'tools' / name), *arguments],
                          capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def load(root, monkeypatch, loading):
    """Import a tool as a module, as Python does when it runs the script."""
    monkeypatch.syspath_prepend(str(root / 'tools'))

    def load(name):
        sys.modules.pop(name, None)
        module = __import__(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    yield load
    for name in ('train', 'test', 'command_line'):
        sys.modules.pop(name, None)


@pytest.mark.parametrize('name, arguments', [('train', MMSEG_TRAIN), ('test', MMSEG_TEST)])
def test_help(root, name, arguments):
    """mim runs it before each training, and takes ``--gpus`` in it for an old tool."""
    result = tool(root, f'{name}.py', '-h')
    assert result.returncode == 0
    assert '--gpus' not in result.stdout
    for argument in arguments:
        if 'local' not in argument:  # hidden: for launchers only
            assert argument in result.stdout


@pytest.mark.parametrize('name', ['train', 'test', 'command_line'])
def test_help_imports_nothing_heavy(root, name):
    """No torch, mmseg or mmsparse at the top of a tool: Python's own modules alone."""
    tree = ast.parse((root / 'tools' / f'{name}.py').read_text())
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name if isinstance(node, ast.Import) else node.module
             for node in top for alias in node.names}
    assert names <= {*sys.stdlib_module_names, 'command_line'}


@pytest.mark.parametrize('name, arguments, message', [
    ('train', ['nothing.py'], 'train.py: config nothing.py does not exist'),
    ('test', ['nothing.py', 'nothing.pth'], 'test.py: checkpoint nothing.pth does not exist'),
])
def test_missing_file_is_one_line(root, name, arguments, message):
    result = tool(root, f'{name}.py', *arguments)
    assert result.returncode == 1
    assert result.stderr == message + '\n'


def arguments(**changes):
    return SimpleNamespace(**{'config': None, 'work_dir': None, 'cfg_options': None,
                              'launcher': 'none', 'local_rank': 0, **changes})


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'some_config.py'
    path.write_text("default_scope = 'mmseg'\nmodel = dict(type='A', alpha=1)\n")
    return str(path)


def test_order_of_work_folders(load, config):
    """Command line, then config, then its name; options reach the config."""
    load_config = load('command_line').load_config
    assert load_config(arguments(config=config)).work_dir == 'work_dirs/some_config'
    options = {'work_dir': 'from_options', 'model.alpha': 2}
    cfg = load_config(arguments(config=config, cfg_options=options))
    assert (cfg.work_dir, cfg.model.alpha) == ('from_options', 2)
    cfg = load_config(arguments(config=config, cfg_options=options, work_dir='from_line'))
    assert cfg.work_dir == 'from_line'


def test_remote_checkpoints_are_left_to_mmengine(load):
    check = load('command_line').check_checkpoint
    check('https://example.invalid/a.pth')
    with pytest.raises(SystemExit, match='nothing.pth does not exist'):
        check('nothing.pth')


@pytest.fixture
def run(load, monkeypatch, config):
    """Run a tool's main() up to the runner; the config that the runner was given."""

    def run(name, *line, **settings):
        path = config
        Config(dict(default_scope='mmseg', model=dict(type='A'), **settings)).dump(path)
        seen = []
        from mmengine.runner import Runner
        monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: (
            seen.append(cfg), SimpleNamespace(
                train=lambda: None, test=lambda: None, register_hook=seen.append,
                model=None))[1]))
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', path, *line])
        load(name).main()
        return seen[0]

    return run


def test_train_switches(run):
    cfg = run('train', '--amp', '--resume', '--no-validate', '--local-rank', '0',
              optim_wrapper=dict(type='OptimWrapper'), val_cfg=dict(), val_dataloader=dict(),
              val_evaluator=dict())
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    assert cfg.resume
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


def test_resume_goes_on_from_the_latest_checkpoint(run, tmp_path, weights):
    """Not from where the config began; but from what the command line names."""
    work = ('--resume', '--work-dir', str(tmp_path / 'work'))
    first = run('train', *work, load_from=weights)
    assert first.load_from == weights and not first.resume  # nothing to go on from
    (tmp_path / 'work').mkdir(exist_ok=True)
    (tmp_path / 'work/last_checkpoint').write_text(weights)
    later = run('train', *work, load_from='https://example.invalid/a.pth')
    assert later.load_from is None and later.resume
    named = run('train', *work, '--cfg-options', f'load_from={weights}')
    assert named.load_from == weights and named.resume


def test_amp_needs_a_plain_wrapper(run):
    with pytest.raises(SystemExit, match='--amp replaces an OptimWrapper; .* ApexOptimWrapper'):
        run('train', '--amp', optim_wrapper=dict(type='ApexOptimWrapper'))


def test_config_keys_survive_without_switches(run):
    cfg = run('train', resume=True, optim_wrapper=dict(type='X'), val_cfg=dict(a=1))
    assert cfg.resume and cfg.optim_wrapper.type == 'X' and cfg.val_cfg == dict(a=1)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'weights.pth'
    path.touch()
    return str(path)


def test_mmseg_switches(run, weights):
    cfg = run('test', weights, '--tta', '--show-dir', 'pictures', '--out', 'predictions',
              test_dataloader=dict(dataset=dict(type='R', dataset=dict(pipeline=[1]))),
              tta_pipeline=[2], tta_model=dict(type='T'), test_evaluator=dict(type='IoUMetric'),
              visualizer=dict(type='V'), default_hooks=dict(visualization=dict(type='H')))
    assert cfg.load_from == weights
    assert cfg.model == dict(type='T', module=dict(type='A'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [2]  # inside a dataset wrapper
    assert cfg.test_evaluator.output_dir == 'predictions'
    assert cfg.visualizer.save_dir == 'pictures'
    assert cfg.default_hooks.visualization.draw


def test_augmentation_is_right_or_refused(run, weights):
    settings = dict(test_dataloader=dict(dataset=dict(pipeline=[1])), tta_pipeline=[2],
                    tta_model=dict(type='SegTTAModel'), test_evaluator=dict(type='IoUMetric'))
    cfg = run('test', weights, '--tta', **settings)
    assert cfg.model == dict(type='mmsparse.SegTTAModel', module=dict(type='A'))
    refined = 'model.type=mmsparse.RefinedSegmentor'
    with pytest.raises(SystemExit, match='--tta: a RefinedSegmentor predicts classes without'):
        run('test', weights, '--tta', '--cfg-options', refined, **settings)


def test_averaged_predictions_go_to_metrics_that_can_score_them(run, weights):
    """Of all metrics of label maps: such predictions are classes, and hold no selection."""
    kinds = [getattr(evaluation, name) for name in evaluation.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseMetric)
             and not issubclass(kind, CocoMetric)]
    labels = dict(data=torch.zeros(1, 5, 5, dtype=torch.long))

    def scores(kind):
        metric = kind(classes=2) if kind is evaluation.BoundaryAccuracyMetric else kind()
        metric.dataset_meta = dict(classes=('a', 'b'))
        try:
            metric.process({}, [dict(pred_sem_seg=labels, gt_sem_seg=labels)])
        except KeyError:
            return False
        return True

    cfg = run('test', weights, '--tta', test_dataloader=dict(dataset=dict(pipeline=[1])),
              tta_pipeline=[2], tta_model=dict(type='SegTTAModel'),
              test_evaluator=[dict(type=f'mmsparse.{kind.__name__}') for kind in kinds])
    expected = [f'mmsparse.{kind.__name__}' for kind in kinds if scores(kind)]
    assert [evaluator.type for evaluator in cfg.test_evaluator] == expected
    assert 0 < len(expected) < len(kinds)


def test_mmdet_switches(run, weights):
    settings = dict(test_evaluator=dict(type='CocoMetric'),
                    default_hooks=dict(visualization=dict(type='H')))
    line = ('--cfg-options', 'default_scope=mmdet')
    cfg = run('test', weights, '--show-dir', 'pictures', '--out', 'a.pkl', *line, **settings)
    assert cfg.default_hooks.visualization.test_out_dir == 'pictures'
    assert cfg.test_evaluator[-1] == dict(type='mmdet.DumpDetResults', out_file_path='a.pkl')
    with pytest.raises(SystemExit, match='ends in .pkl'):
        run('test', weights, '--out', 'folder', *line, **settings)


@pytest.mark.parametrize('switch, message', [
    ('--tta', '--tta needs tta_model and tta_pipeline'),
    ('--show', 'need default_hooks.visualization'),
])
def test_missing_settings_are_named(run, weights, switch, message):
    with pytest.raises(SystemExit, match=message):
        run('test', weights, switch)


DETECTOR = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=1))
dataset = dict(
    type='CocoDataset', data_root='', ann_file='boxes.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('box', )))
small = dict(type='Resize', scale=(64, 64), keep_ratio=False)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, **dataset, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), small,
        dict(type='PackDetInputs')]))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, **dataset, test_mode=True, pipeline=[
        dict(type='LoadImageFromFile'), small, dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='boxes.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
'''


@pytest.mark.slow
def test_stock_detector_trains_and_tests(root, tmp_path):
    """A stock mmdet config goes through both tools, with --out and --show-dir."""
    images = []
    for index in range(2):
        name = f'{index}.png'
        Image.fromarray(np.full((64, 64, 3), 90 * index, np.uint8)).save(tmp_path / name)
        images.append(dict(id=index, file_name=name, width=64, height=64))
    boxes = [dict(id=i, image_id=i, category_id=1, bbox=[8, 8, 40, 40], area=1600, iscrowd=0)
             for i in range(2)]
    (tmp_path / 'boxes.json').write_text(json.dumps(
        dict(images=images, annotations=boxes, categories=[dict(id=1, name='box')])))
    (tmp_path / 'detector.py').write_text(DETECTOR)
    trained = tool(root, 'train.py', 'detector.py', '--work-dir', 'run', cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr[-2000:]
    tested = tool(root, 'test.py', 'detector.py', 'run/epoch_1.pth', '--out', 'found.pkl',
                  '--show-dir', 'pictures', '--work-dir', 'run', cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr[-2000:]
    assert 'Epoch(test) [2/2]' in tested.stdout + tested.stderr
    assert (tmp_path / 'found.pkl').stat().st_size > 0
    assert len(list((tmp_path / 'run').rglob('pictures/*.png'))) == 2
