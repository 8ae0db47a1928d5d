"""``tools/image_demo.py``: what it writes, prints and refuses, on a tiny model."""
import ast
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
import torch

from mmsparse.apis import inference, init_model
from mmsparse.engine.loading import load_model
from tests.configs import config
from tests.models.tiny import refine_cfg, segmentor_cfg

SIZE = (40, 56)


class FakeClock:
    """As ``mmsparse.engine.stages.StageClock``, with 3 ms and 1 ms for every image."""

    def __init__(self, model):
        self.model = model
        self.milliseconds = {}

    def __enter__(self):
        forward = self.model.test_step

        def test_step(batch):
            for title, time in (('low resolution', 3.), ('refine', 1.)):
                self.milliseconds.setdefault(title, []).append(time)
            return forward(batch)

        self.model.test_step = test_step
        return self

    def __exit__(self, *error):
        del self.model.test_step


@pytest.fixture
def clock(monkeypatch):
    module = types.ModuleType('mmsparse.engine.stages')
    module.StageClock = FakeClock
    monkeypatch.setitem(sys.modules, 'mmsparse.engine.stages', module)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Folder with config.py, weights.pth, other.py and other.pth (no SparseRefine), images/."""
    folder = tmp_path_factory.mktemp('demo')
    for name, model in (('config', None), ('other', segmentor_cfg())):
        config(model=model, metainfo=dict(classes=tuple('abcde'))).dump(folder / f'{name}.py')
        built = load_model(folder / f'{name}.py', None, 'cpu')
        meta = dict(built.cfg.test_dataloader.dataset.metainfo)
        torch.save(dict(state_dict=built.state_dict(), meta=dict(dataset_meta=meta)),
                   folder / ('weights.pth' if model is None else 'other.pth'))
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.jpg'):
        cv2.imwrite(str(folder / 'images' / name),
                    rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    (folder / 'images' / 'notes.txt').touch()
    return folder


@pytest.fixture
def run(root, files, clock, tmp_path, monkeypatch, capsys):
    """Runs the tool in an empty folder on images by name: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(root / 'tools'))

    def run(*line, name='config', weights='weights'):
        for module in ('image_demo', 'command_line'):
            monkeypatch.delitem(sys.modules, module, raising=False)
        line = [str(files / 'images' / part) if part.endswith(('.png', '.jpg')) and
                (files / 'images' / part).exists() else part for part in line]
        monkeypatch.setattr(sys, 'argv', [
            'image_demo.py', *line, name if '::' in name else str(files / f'{name}.py'),
            str(files / f'{weights}.pth'), '--device', 'cpu'])
        import image_demo
        code = 0
        try:
            image_demo.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err + (code if isinstance(code, str) else '')

    yield run
    for module in ('image_demo', 'command_line'):
        sys.modules.pop(module, None)


def test_help_is_light(root):
    """mim runs it first, and takes ``--gpus`` in it for an old tool."""
    result = subprocess.run([sys.executable, '-W', 'ignore', root / 'tools' / 'image_demo.py',
                             '-h'], capture_output=True, text=True)
    assert result.returncode == 0 and '--gpus' not in result.stdout
    for argument in ('image', 'config', 'checkpoint', '--out', '--labels', '--device', '--window',
                     '--force'):
        assert argument in result.stdout
    tree = ast.parse((root / 'tools' / 'image_demo.py').read_text())
    top = {alias.name if isinstance(node, ast.Import) else node.module for node in tree.body
           if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    assert top <= {'__future__', 'argparse', 'pathlib', 'statistics', 'sys', 'typing',
                   'command_line'}


def test_one_image(run, files, tmp_path):
    code, out, err = run('a.png', '--labels')
    assert code == 0 and err == ''
    strip = cv2.imread(str(tmp_path / 'a_refined.jpg'))
    assert strip.shape[1] == 5 * (480 + 12)
    model = init_model(files / 'config.py', files / 'weights.pth', device='cpu')
    sample = inference(model, files / 'images' / 'a.png')
    labels = cv2.imread(str(tmp_path / 'a_labels.png'), cv2.IMREAD_UNCHANGED)
    assert (labels == sample.pred_sem_seg.data[0].numpy()).all()
    density = sample.selected.data.float().mean()
    assert f'{density:.1%} of the pixels refined, a_refined.jpg' in out
    assert {path.name for path in tmp_path.iterdir()} == {'a_refined.jpg', 'a_labels.png'}


def test_first_image_is_labeled_once_before_it_is_timed(run, monkeypatch):
    """And no other image, also where the first one is none."""
    seen = []
    monkeypatch.setattr('mmsparse.apis.inference', lambda model, image: (
        seen.append('test_step' in vars(model)), inference(model, image))[1])
    run('nothing.jpg', 'a.png', 'b.jpg')
    assert seen == [False, True, True]


def test_table_of_stages(run):
    lines = run('a.png', 'b.jpg')[1].splitlines()
    assert any('median of 2' in line for line in lines)
    cells = [line.replace('│', ' ').split() for line in lines]
    for row in (['low', 'resolution', '3.0', '75.0%'], ['refine', '1.0', '25.0%'],
                ['all', 'stages', '4.0', '100.0%']):
        assert row in cells


def test_a_folder_and_a_place(run, files, tmp_path):
    code, out, _ = run(str(files / 'images'), '--out', 'deep/folder')
    assert code == 0 and out.count('pixels refined') == 2
    assert {path.name for path in (tmp_path / 'deep' / 'folder').iterdir()} == {
        'a_refined.jpg', 'b_refined.jpg'}


def test_a_named_file(run, tmp_path):
    assert run('a.png', '--out', 'new/picture.png', '--labels')[0] == 0
    assert {path.name for path in (tmp_path / 'new').iterdir()} == {
        'picture.png', 'picture_labels.png'}


def test_options_may_stand_between_the_images(run, tmp_path):
    assert run('a.png', '--out', 'x', 'b.jpg')[0] == 0
    assert len(list((tmp_path / 'x').iterdir())) == 2


@pytest.fixture(scope='module')
def many(files):
    """many.py and many.pth: 300 classes without colors; odd.pth names two of them."""
    names = [f'class {k}' for k in range(300)]
    cfg = config(model=refine_cfg(num_classes=300), metainfo=dict(classes=names))
    cfg.dump(files / 'many.py')
    model = load_model(files / 'many.py', None, 'cpu')
    model.segmentor.decode_head.conv_seg.bias.data[280] = 100
    for name, classes in (('many', names), ('odd', names[:2])):
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
            classes=classes))), files / f'{name}.pth')


def test_300_classes_without_colors(run, many, tmp_path):
    code, _, err = run('a.png', '--labels', name='many', weights='many')
    assert code == 0 and err == ''
    assert cv2.imread(str(tmp_path / 'a_refined.jpg')).shape[1] == 5 * 492
    labels = cv2.imread(str(tmp_path / 'a_labels.png'), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16 and (labels == 280).mean() > 0.3


def test_class_names_that_are_not_the_models(run, many):
    code, _, err = run('a.png', name='many', weights='odd')
    assert code and 'the model has 300 classes, but checkpoint or test set name 2' in err


@pytest.mark.parametrize('existing', ['a_refined.jpg', 'a_labels.png'])
def test_nothing_is_overwritten_unasked(run, tmp_path, existing):
    """Neither of the two, nor is one of them written without the other."""
    (tmp_path / existing).write_text('mine')
    code, _, err = run('a.png', '--labels')
    assert code == 1 and f'{existing} exists; --force overwrites' in err
    assert (tmp_path / existing).read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1
    assert run('a.png', '--labels', '--force')[0] == 0
    assert cv2.imread(str(tmp_path / existing)) is not None


def test_a_bad_file_is_reported_and_the_others_go_on(run, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    code, out, err = run('nothing.jpg', 'broken.jpg', 'b.jpg')
    assert code == 1
    assert 'nothing.jpg: ' in err and 'broken.jpg is no image' in err and len(err.split('\n')) == 3
    assert out.count('pixels refined') == 1 and (tmp_path / 'b_refined.jpg').exists()


def test_no_table_where_nothing_was_labeled(run):
    code, out, _ = run('nothing.jpg')
    assert code == 1 and 'stage' not in out


def test_window(run, monkeypatch):
    """The strip as RGB, on a machine with a display; elsewhere one line says so."""
    import matplotlib.pyplot as plt
    monkeypatch.setattr(plt, 'get_backend', lambda: 'agg')
    assert '--window needs a display' in run('a.png', '--window')[2]
    monkeypatch.setattr(plt, 'get_backend', lambda: 'TkAgg')
    shown = []
    monkeypatch.setattr('mmsparse.visualization.RefinementVisualizer.show',
                        lambda self, picture, win_name: shown.append((picture.shape[1], win_name)))
    assert run('a.png', '--window')[0] == 0
    assert shown == [(5 * 492, 'a.png')]


@pytest.mark.parametrize('line, names, message', [
    (['a.png', 'b.jpg', '--out', 'one.jpg'], {},
     'image_demo.py: --out one.jpg is one file, but there are 2 images: name a folder'),
    (['a.png', 'a.jpg'], {}, 'would both be written to a_refined.jpg'),
    (['.'], {}, 'folder . holds no image'),
    (['a.png'], dict(name='nothing'), 'nothing.py does not exist'),
    (['a.png'], dict(name='mmseg::fcn/nothing.py'), 'nothing.py'),
    (['a.png'], dict(weights='nothing'), 'nothing.pth does not exist'),
    (['a.png'], dict(name='other', weights='other'),
     'other.py builds EncoderDecoder, not SparseRefineSegmentor: nothing is refined there'),
])
def test_one_line_says_what_is_wrong(run, line, names, message):
    code, out, err = run(*line, **names)
    assert code not in (0, None) and message in err and '\n' not in err
    assert 'refined' not in out


def test_with_the_real_clock(root, files, tmp_path):
    pytest.importorskip('mmsparse.engine.stages')
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', root / 'tools' / 'image_demo.py',
         files / 'images' / 'a.png', files / 'config.py', files / 'weights.pth'],
        cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'all stages' in result.stdout and (tmp_path / 'a_refined.jpg').exists()
