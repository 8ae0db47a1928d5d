"""Refinement in one call, and by the command."""
import importlib
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from mmsparse.apis import init_model, refine_mask
from mmsparse.masks import read_mask
from tests.examples import examples
from tests.models.crm.files import write_noise, write_refiner


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A thin refiner's config and weights; two images with masks, one mask that fits no image."""
    folder = tmp_path_factory.mktemp('refine')
    write_refiner(folder)
    sizes = dict(a=(96, 130), b=(120, 100), c=(90, 90))
    write_noise(folder / 'images', {f'{name}.jpg': size for name, size in sizes.items()})
    (folder / 'masks').mkdir()
    for name, size in sizes.items():
        mask = np.zeros(size, np.uint8)
        mask[20:70, 30:80] = 255
        cv2.imwrite(str(folder / f'masks/{name}.png'), mask[1:] if name == 'c' else mask)
    return folder


def test_one_call(files):
    model = init_model(files / 'crm.py', files / 'crm.pth', 'cpu')
    image, mask = cv2.imread(str(files / 'images/a.jpg')), read_mask(files / 'masks/a.png')
    found = refine_mask(files / 'images/a.jpg', files / 'masks/a.png', model)
    assert found.shape == (96, 130) and found.dtype == np.float32
    for same in (mask, mask > 0.5, (255 * mask).astype(np.uint8)):
        np.testing.assert_array_equal(refine_mask(image, same, model), found)
    with pytest.raises(ValueError, match=r'the image has \[96, 130\] pixels, the mask \[95, 130\]'):
        refine_mask(image, mask[1:], model)
    with pytest.raises(TypeError, match='needs a CRMRefiner, got Linear'):
        refine_mask(image, mask, torch.nn.Linear(1, 1))


def test_the_command_on_one_image(start, run, files, tmp_path):
    args = (files / 'images/a.jpg', files / 'masks/a.png', '--config', files / 'crm.py',
            '--checkpoint', files / 'crm.pth', '--device', 'cpu')
    done = start('refine', *args, '--out', tmp_path / 'x.npy', '--soft', '--max-gib', '0.25')
    assert done.returncode == 0, done.stderr
    model = init_model(files / 'crm.py', files / 'crm.pth', 'cpu')
    expected = refine_mask(files / 'images/a.jpg', files / 'masks/a.png', model)
    np.testing.assert_allclose(np.load(tmp_path / 'x.npy'), expected, atol=1e-3)
    share = float(re.search(r'([\d.]+)% of the pixels changed', done.stdout)[1])
    coarse = read_mask(files / 'masks/a.png')
    assert share == pytest.approx(100 * ((expected > 0.5) != (coarse > 0.5)).mean(), abs=0.1)
    again = run('refine', *args, '--out', tmp_path / 'x.npy')
    assert again.returncode == 1 and 'exists; --force writes over it' in again.stderr
    assert np.load(tmp_path / 'x.npy').dtype == np.float32  # untouched


def test_a_bad_file_does_not_stop_the_others(run, files, tmp_path):
    done = run('refine', files / 'images', files / 'masks', '--config', files / 'crm.py',
               '--checkpoint', files / 'crm.pth', '--out', tmp_path, '--format', 'json',
               '--device', 'cpu')
    assert done.returncode == 1
    assert '1 of 3 masks are not refined:\n' in done.stderr
    assert done.stderr.rstrip().endswith('c.png: the image has [90, 90] pixels, the mask [89, 90]')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'b.json']
    assert read_mask(tmp_path / 'b.json').shape == (120, 100)


def test_misuse(run, files, tmp_path):
    def fails(message, *args, code=1):
        done = run('refine', *args, '--checkpoint', files / 'crm.pth', '--config', files / 'crm.py')
        assert done.returncode == code and message in done.stderr, done.stderr
    images, masks = files / 'images', files / 'masks'
    fails('two files or two folders', images, masks / 'a.png', '--out', tmp_path)
    fails('is one file, but there are 3 masks', images, masks, '--out', tmp_path / 'a.png')
    fails('cannot be soft', images, masks, '--out', tmp_path, '--soft', '--format', 'json', code=2)
    (tmp_path / 'masks').mkdir()
    fails('holds no mask', images, tmp_path / 'masks', '--out', tmp_path)
    fails('as the image and as its mask', images / 'a.jpg', images / 'a.jpg', '--out', tmp_path)


@pytest.fixture
def tool(root, monkeypatch):
    """The command's module."""
    monkeypatch.syspath_prepend(str(root / 'tools'))
    return importlib.import_module('refine')


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


PICTURES = ('.jpg', '.JPG', '.jpeg', '.png', '.tif')
OTHERS = ('.npy', '.json', '.txt')


@given(st.dictionaries(st.sampled_from('abc'), st.sets(
    st.sampled_from((*PICTURES, *OTHERS)), min_size=1, max_size=4)))
@examples(150, suppress_health_check=list(HealthCheck))
def test_pairs_of_one_folder(tool, tmp_path_factory, names):
    """By hand: a JPEG, else a picture, with one file beside it that can be a mask; or a refusal."""
    folder = touch(tmp_path_factory.mktemp('both'), *(
        name + suffix for name, suffixes in names.items() for suffix in suffixes))
    expected, unclear, lost = [], [], []
    for name in sorted(names):
        kinds = names[name] - {'.txt'}
        jpegs = {k for k in kinds if k.lower() in ('.jpg', '.jpeg')}
        images = jpegs or kinds & set(PICTURES)
        others = kinds - images
        if not kinds or len(images) == 1 and not others:
            continue
        if not images:
            lost.append(name)
        elif len(images) > 1 or len(others) > 1:
            unclear.append(name)
        else:
            expected += [(folder / (name + images.pop()), folder / (name + others.pop()))]
    if lost or unclear or not expected:
        with pytest.raises(SystemExit) as error:
            tool.pair(folder, folder)
        message = str(error.value)
        assert ('have no image' if lost else 'which belong together' if unclear else
                'holds no mask') in message
        if not lost:
            assert all(f'{folder / name}.' in message for name in unclear)
    else:
        assert sorted(tool.pair(folder, folder)) == expected


def test_pairs_of_two_folders(tool, tmp_path, capsys):
    images = touch(tmp_path / 'i', 'a.jpg', 'b.png', 'c.jpg', 'x.txt')
    masks = touch(tmp_path / 'm', 'a.png', 'b.json')
    (masks / 'd.png').mkdir()
    assert tool.pair(images, masks) == [(images / f, masks / g) for f, g in (
        ('a.jpg', 'a.png'), ('b.png', 'b.json'))]
    assert '1 images in' in (said := capsys.readouterr().err) and said.endswith('left out: c\n')
    for folder, name in ((masks, 'a.npy'), (images, 'a.png')):
        touch(folder, name)
        with pytest.raises(SystemExit, match='1 names .* more than one .*a.jpg.*a.png') as error:
            tool.pair(images, masks)
        assert str(folder / name) in str(error.value)
        (folder / name).unlink()
    touch(masks, 'z.png')
    with pytest.raises(SystemExit, match=r'1 masks in .*m have no image in .*i: z'):
        tool.pair(images, masks)


@pytest.mark.parametrize(('out', 'place'), [
    ('r.png', 'r.png'), ('r.NPY', 'r.NPY'), ('r', 'r/a.png'), ('v1.2', 'v1.2/a.png'),
    ('r.jpg', None), ('r.tif', None), ('v1.3', None), ('plain', None), ('m/a.png', None),
    ('m', None)])
@pytest.mark.parametrize('pairs', [1, 2])
def test_places(tool, tmp_path, out, place, pairs):
    """No folder that is named as a picture, and nothing over what is refined."""
    masks = touch(tmp_path / 'm', 'a.png', 'b.png')
    touch(tmp_path, 'plain')
    (tmp_path / 'v1.2').mkdir()
    given = [(tmp_path / f'{name}.jpg', masks / f'{name}.png') for name in 'ab'[:pairs]]
    if place is None or pairs == 2 and Path(out).suffix.lower() in ('.png', '.npy'):
        with pytest.raises(SystemExit, match=f'--out .*{out}'):
            tool.places(given, tmp_path / out, 'png')
    else:
        found = tool.places(given, tmp_path / out, 'png')
        assert found[0] == tmp_path / place and len(set(found)) == pairs
    assert {path.name for path in tmp_path.iterdir()} == {'m', 'plain', 'v1.2'}


def test_every_failure_of_a_file_is_reported(tool, tmp_path, monkeypatch, capsys):
    """Whatever is wrong with a file; the others are refined."""
    from mmsparse import apis
    from mmsparse.engine import fusion

    monkeypatch.setattr(apis, 'init_model', lambda *_: None)
    monkeypatch.setattr(fusion, 'fuse_for_inference', lambda model: model)
    images, masks, out = (tmp_path / name for name in ('i', 'm', 'out'))
    good = np.zeros((9, 9), np.uint8)
    good[2:5] = 255
    bad = {'empty.npy': b'', 'nothing.json': b'{"size": [9, 9], "counts": null}', 'text.png': b'x',
           'cut.png': cv2.imencode('.png', good)[1].tobytes()[:-20]}
    for name in (*bad, 'fine.png', 'large.png', 'memory.png'):
        touch(masks), touch(images, f'{Path(name).stem}.jpg')
        (masks / name).write_bytes(bad.get(name) if name in bad else
                                   cv2.imencode('.png', good)[1].tobytes())
    problems = {'large': RuntimeError('CUDA out of memory'), 'memory': MemoryError('no memory')}

    def refined(image, mask, model):
        if image.stem in problems:
            raise problems[image.stem]
        return mask

    monkeypatch.setattr(apis, 'refine_mask', refined)
    monkeypatch.setattr(sys, 'argv', ['refine.py', str(images), str(masks), '--out', str(out),
                                      '--checkpoint', str(touch(tmp_path, 'w') / 'w')])
    with pytest.raises(SystemExit) as error:
        tool.main()
    assert error.value.code == 1 and [path.name for path in out.iterdir()] == ['fine.png']
    said = capsys.readouterr().err
    assert '6 of 7 masks are not refined' in said
    for name in (*bad, 'large.png', 'memory.png'):
        assert f'\n  {masks / name}: ' in said
