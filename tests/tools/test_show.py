"""``tools/show.py``: what its pages hold, which label belongs to a picture, and what it refuses."""
import ast
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsparse.apis import inference, init_model
from mmsparse.engine.loading import load_model
from mmsparse.engine.stages import STAGES
from tests.configs import config
from tests.models.tiny import refined_cfg
from tests.tools.show_pages import SIZE, read_page, write_files


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('show'))


@pytest.fixture
def tool(root, monkeypatch, tmp_path, loading):
    """The tool as a module, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(root / 'tools'))
    for module in ('show', 'command_line'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    import show
    yield show
    for module in ('show', 'command_line'):
        sys.modules.pop(module, None)


@pytest.fixture
def run(tool, files, monkeypatch, capsys):
    """Runs the tool on files by name: exit code, stdout, stderr."""

    def run(*line, model='refine'):
        line = [str(files / part) if (files / part).exists() else part for part in line]
        start = [str(files / f'{model}{suffix}') for suffix in ('.py', '.pth')] if model else []
        monkeypatch.setattr(sys, 'argv', ['show.py', *start, *line, '--device', 'cpu'])
        code = 0
        try:
            tool.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err + (code if isinstance(code, str) else '')

    return run


def sample_of(files, model, picture='a.png', **options):
    built = init_model(files / f'{model}.py', files / f'{model}.pth', 'cpu', options)
    return inference(built, files / picture)


def test_help_is_light(root):
    """mim runs it first, and takes ``--gpus`` in it for an old tool."""
    result = subprocess.run([sys.executable, '-W', 'ignore', root / 'tools' / 'show.py', '-h'],
                            capture_output=True, text=True)
    assert result.returncode == 0 and '--gpus' not in result.stdout
    for tool in ('show', 'app'):
        tree = ast.parse((root / 'tools' / f'{tool}.py').read_text())
        top = {alias.name if isinstance(node, ast.Import) else node.module for node in tree.body
               if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
        assert top <= {'__future__', 'argparse', 'html', 'pathlib', 're', 'socket', 'sys',
                       'tempfile', 'typing', 'command_line'}


def test_sparserefine(run, files, tmp_path):
    """Maps, score and threshold are the model's; every stage has its time."""
    code, out, err = run('a.png', 'b.png', '--labels', 'labels', '--out', 'pages')
    assert (code, out.split(), err) == (0, ['pages/a.html', 'pages/b.html'], '')
    assert {path.name for path in (tmp_path / 'pages').iterdir()} == {'a.html', 'b.html'}
    for name in 'ab':
        data = read_page(tmp_path / 'pages' / f'{name}.html')
        sample = sample_of(files, 'refine', f'{name}.png', **{'model.test_cfg.keep_score': True})
        score = sample.selection_score.data[0].numpy()
        planes, steps = data['planes'], np.float32(data['score']['steps'])
        for plane, field in dict(before='low_res_sem_seg', result='pred_sem_seg',
                                 selected='selected').items():
            assert (planes[plane] == sample.get(field).data[0].numpy()).all()
        for i, step in enumerate(steps):
            assert ((planes['score'] > i) == (score > step)).all()
        assert steps[data['score']['own']] == np.float32(.5)
        assert (data['score']['name'], data['score']['threshold']) == ('Entropy in nats', 'alpha')
        label = cv2.imread(str(files / 'labels' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        assert (planes['label'] == np.where(label == 255, 5, label)).all()
        assert data['milliseconds'].keys() == STAGES.keys()
        assert all(ms > 0 for ms in data['milliseconds'].values())
        assert data['title'] == f'{name}.png' and data['facts']['checkpoint'] == 'refine.pth'


def test_what_a_budget_cut(run, files, tmp_path):
    """The threshold is what it amounted to, the mask what was refined; labels begin at 1."""
    label = cv2.imread(str(files / 'labels' / 'a.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / 'label.png'), np.where(label == 255, 0, label + 1).astype(np.uint8))
    assert run('a.png', '--labels', str(tmp_path / 'label.png'), model='budget')[0] == 0
    data, sample = read_page(tmp_path / 'a.html'), sample_of(files, 'budget')
    assert data['planes']['selected'].mean() == pytest.approx(.25, abs=.001)
    assert (data['planes']['selected'] == sample.selected.data[0].numpy()).all()
    own = np.float32(data['score']['steps'][data['score']['own']])
    assert own == np.float32(sample.selection_threshold) > .1
    assert (data['planes']['label'] == np.where(label == 255, 5, label)).all()


def test_a_refined_segmentor_and_a_plain_one(run, files, tmp_path):
    assert run('a.png', model='refined')[0] == 0
    data, sample = read_page(tmp_path / 'a.html'), sample_of(files, 'refined')
    for plane, field in dict(before='coarse_sem_seg', result='pred_sem_seg').items():
        assert (data['planes'].pop(plane) == sample.get(field).data[0].numpy()).all()
    assert not data['planes'] and data['names'] == dict(before='Coarse', result='Refined')
    assert run('a.png', '--force', model='plain')[0] == 0
    data, sample = read_page(tmp_path / 'a.html'), sample_of(files, 'plain')
    assert (data['planes'].pop('result') == sample.pred_sem_seg.data[0].numpy()).all()
    assert not data['planes'] and data['score'] is None and not data['milliseconds']


def test_a_name_of_the_zoo_needs_no_checkpoint(run, tool, monkeypatch):
    seen = []
    monkeypatch.setattr(tool, 'segmentor', lambda args: seen.append(args) or sys.exit(7))
    assert run('mmsparse://wnet_hrf', 'a.png', model=None)[0] == 7
    assert (seen[0].config, seen[0].checkpoint) == ('mmsparse://wnet_hrf',) * 2


@pytest.mark.parametrize('line, expected', [
    (['c.py', 'w.pth', 'a.png', 'b.png'], ('w.pth', ['a.png', 'b.png'])),
    (['mmsparse://x', 'a.png'], (None, ['a.png'])),
    (['mmsparse://x', 'w.pth', 'a.png'], ('w.pth', ['a.png'])),
    (['c.py', 'mmsparse://x', 'a.png'], ('mmsparse://x', ['a.png'])),
    (['c.py', 'w.pth', '--out', 'x', 'a.png'], ('w.pth', ['a.png'])),
])
def test_which_word_is_the_checkpoint(tool, monkeypatch, line, expected):
    monkeypatch.setattr(sys, 'argv', ['show.py', *line])
    args = tool.parse_args()
    assert (args.checkpoint, args.inputs) == expected


def test_bad_pictures_are_reported_and_the_others_go_on(run, files, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    (tmp_path / 'b.html').write_text('mine')
    for file in (*files.glob('*.png'), files / 'refine.py'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'c.png').write_bytes((files / 'a.png').read_bytes())
    (tmp_path / 'd.mp4').touch()
    names = [str(tmp_path / name) for name in ('broken.jpg', 'b.png', 'c.png', 'd.mp4', 'a.png')]
    code, out, err = run(*names, '--labels', 'labels')
    assert code == 1 and out == 'a.html\n'
    lines = err.splitlines()
    assert len(lines) == 4 and 'broken.jpg is no image' in lines[0]
    assert 'b.html exists; --force writes over it' in lines[1]
    assert 'holds no label of' in lines[2] and 'c.png' in lines[2]
    assert 'a page shows a picture, not a video' in lines[3]
    assert (tmp_path / 'b.html').read_text() == 'mine'


def test_folders_are_kept(run, files, tmp_path):
    for place in ('in/x', 'in/y/z'):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / 'a.png').write_bytes((files / 'a.png').read_bytes())
    assert run('in', '--out', 'pages', model='plain')[0] == 0
    assert sorted(map(str, (tmp_path / 'pages').rglob('*.html'))) == [
        f'{tmp_path}/pages/{name}/a.html' for name in ('x', 'y/z')]
    assert 'lies within the input in' in run('in', '--out', 'in/pages')[2]


@pytest.mark.parametrize('label, message', [
    (np.zeros((9, 9), np.uint8), r'label map has [9, 9] pixels, its picture [72, 96]'),
    (np.full(SIZE, 77, np.uint8), 'holds 77; classes are 0 to 4'),
    (np.zeros((*SIZE, 3), np.uint8), 'one class number per pixel'),
])
def test_labels_that_are_none(run, tmp_path, label, message):
    cv2.imwrite(str(tmp_path / 'label.png'), label)
    code, _, err = run('a.png', '--labels', str(tmp_path / 'label.png'))
    assert code == 1 and message in err and 'label.png' in err
    assert not (tmp_path / 'a.html').exists()


@pytest.mark.parametrize('line, model, message', [
    (['nothing.py', 'w.pth', 'a.png'], None, 'config nothing.py does not exist'),
    (['refine.py', 'nothing.pth', 'a.png'], None, 'checkpoint nothing.pth does not exist'),
    (['mmsparse://nothing', 'a.png'], None, "the zoo has no 'nothing'"),
    (['a.png', '--labels', 'nothing'], 'refine', '--labels nothing does not exist'),
    (['a.png', 'b.png', '--labels', 'labels/a.png'], 'refine', 'but there are 2 pictures'),
    (['a.png', 'nothing.jpg'], 'refine', 'the input nothing.jpg does not exist'),
    (['empty'], 'refine', 'the folder empty holds no picture'),
])
def test_one_line_says_what_is_wrong(run, tmp_path, line, model, message):
    (tmp_path / 'empty').mkdir()
    code, out, err = run(*line, model=model)
    assert code not in (0, None) and message in err and '\n' not in err and not out
    assert not list(tmp_path.glob('*.html'))


def test_a_model_that_labels_no_pixels(run, files, tmp_path):
    refiner = refined_cfg()['refiner']
    config(model=refiner).dump(tmp_path / 'crm.py')
    state = load_model(tmp_path / 'crm.py', None, 'cpu').state_dict()
    torch.save(state, tmp_path / 'crm.pth')
    code, _, err = run('crm.py', 'crm.pth', 'a.png', model=None)
    assert code and 'builds CRMRefiner: it labels no pixels' in err


def test_weights_named_in_the_config_are_enough(run, files, tmp_path):
    """As for predict: a wrapper of CRM may name those of both its parts."""
    whole = load_model(files / 'refined.py', files / 'refined.pth', 'cpu')
    for part in ('segmentor', 'refiner'):
        torch.save(getattr(whole, part).state_dict(), tmp_path / f'{part}.pth')
    cfg = Config.fromfile(files / 'refined.py')
    cfg.model.update({f'{part}_checkpoint': f'{tmp_path}/{part}.pth'
                      for part in ('segmentor', 'refiner')})
    cfg.dump(tmp_path / 'parts.py')
    code, _, err = run(str(tmp_path / 'parts.py'), 'a.png', model=None)
    assert code == 0, err
    assert run('a.png', '--out', 'whole', model='refined')[0] == 0
    parts, whole = (read_page(tmp_path / path)['planes'] for path in ('a.html', 'whole/a.html'))
    assert parts.keys() == whole.keys()
    assert all(np.array_equal(parts[name], whole[name]) for name in parts)
    assert 'needs a checkpoint' in run(str(files / 'plain.py'), 'a.png', model=None)[2]
