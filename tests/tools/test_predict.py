"""``apis.predict`` and ``tools/predict.py``: any model, folders in, files out, bad input."""
import ast
import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO

from mmsparse import apis
from mmsparse.apis import inference, init_model, predict
from mmsparse.engine.loading import load_model
from tests.configs import config
from tests.engine.videos import video
from tests.models.crm.builders import Fake
from tests.models.tiny import refined_cfg, segmentor_cfg

RNG = np.random.default_rng(0)
NAMES = dict(metainfo=dict(classes=tuple('abcde')))
DETECTOR = """
_base_ = '{root}/configs/effseg/effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=18, base_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64]),
    test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=4)))
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def save_weights(path, model, **meta):
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)


@pytest.fixture(scope='module')
def files(tmp_path_factory, root):
    """Configs and weights: SparseRefine, a segmentor, CRM over it, EffSeg's detector and CRM."""
    folder = tmp_path_factory.mktemp('models')
    torch.manual_seed(0)
    for name, model in (('sparse', None), ('plain', segmentor_cfg()),
                        ('refined', refined_cfg(class_policy=dict(min_area=1)))):
        config(model=model, **NAMES).dump(folder / f'{name}.py')
        built = load_model(folder / f'{name}.py', None, 'cpu')
        if name == 'plain':  # no class wins everywhere
            built.decode_head.conv_seg.weight.data.mul_(400)
        save_weights(folder / f'{name}.pth', built, dataset_meta=NAMES['metainfo'])
    (folder / 'effseg.py').write_text(DETECTOR.format(root=root))
    detector = load_model(folder / 'effseg.py', None, 'cpu')
    save_weights(folder / 'effseg.pth', detector)
    both = Config.fromfile(folder / 'effseg.py')
    both.model = dict(type='mmsparse.RefinedDetector', detector=both.model, min_area=1,
                      refiner=refined_cfg()['refiner'])
    both.dump(folder / 'refined_detector.py')
    whole = load_model(folder / 'refined_detector.py', None, 'cpu')
    whole.detector.load_state_dict(detector.state_dict())
    save_weights(folder / 'refined_detector.pth', whole)
    return folder


@pytest.fixture(scope='module')
def plain(files):
    return init_model(files / 'plain.py', files / 'plain.pth', device='cpu')


@pytest.fixture(scope='module')
def effseg(files):
    return init_model(files / 'effseg.py', files / 'effseg.pth', device='cpu')


@pytest.fixture
def images(tmp_path):
    """Three pictures of several sizes in two folders."""
    for name, size in (('a.png', (40, 56)), ('sub/b.png', (33, 47)), ('sub/c.png', (64, 48))):
        save(tmp_path / 'in' / name, noise(*size))
    return tmp_path / 'in'


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def written(folder):
    """Every file with its content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*')
            if p.is_file()}


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


# ---- Any model ----


@pytest.mark.parametrize('name', ['sparse', 'plain', 'refined'])
def test_labels_are_what_the_model_says(files, images, tmp_path, name):
    """Of pictures of mixed sizes, in the folders that they are in."""
    model = init_model(files / f'{name}.py', files / f'{name}.pth', device='cpu')
    done = predict(model, images, tmp_path / 'out', formats=('labels', 'coco'))
    assert (done.written, done.skipped, done.failed) == (3, 0, [])
    assert done.documents == [tmp_path / 'out/coco.json']
    data = COCO(str(tmp_path / 'out/coco.json'))
    for i, picture in enumerate(('a', 'sub/b', 'sub/c'), 1):
        expected = inference(model, images / f'{picture}.png').pred_sem_seg.data[0].numpy()
        assert (read(tmp_path / f'out/labels/{picture}.png') == expected).all()
        assert data.imgs[i]['file_name'] == f'{picture}.png'
        for annotation in data.loadAnns(data.getAnnIds([i])):
            label = annotation['category_id'] - 1
            assert (data.annToMask(annotation) == (expected == label)).all()


@pytest.mark.parametrize('name', ['effseg', 'refined_detector'])
def test_objects_are_what_the_detector_finds(files, images, tmp_path, name):
    """As mmdet's own inference finds them, and with the network that was trained, not fused."""
    from mmdet.apis import inference_detector

    model, trained = (load(files / f'{name}.py', files / f'{name}.pth', device='cpu')
                      for load in (init_model, load_model))
    if name == 'refined_detector':  # what a refiner without training gives is empty
        for each in (model, trained):
            each.refiner = Fake(lambda images, masks: (images[:, 0] > 99).float())
    assert model.dataset_meta['classes'][0] == 'person'
    done = predict(model, images, tmp_path / 'out', score_thr=0, formats=('coco', 'overlay'))
    assert (done.written, done.failed) == (3, [])
    data = COCO(str(tmp_path / 'out/coco.json'))
    total = 0
    for i, picture in enumerate(('a', 'sub/b', 'sub/c'), 1):
        path = images / f'{picture}.png'
        found = inference_detector(model, str(path)).pred_instances
        unfused = inference_detector(trained, str(path)).pred_instances
        torch.testing.assert_close(found.scores, unfused.scores, atol=1e-6, rtol=1e-4)
        assert (found.labels == unfused.labels).all()
        assert (found.masks == unfused.masks).float().mean() > 0.999
        masks = found.masks.numpy()
        kept = masks.any((1, 2))
        total += kept.sum()
        annotations = data.loadAnns(data.getAnnIds([i]))
        assert [a['score'] for a in annotations] == found.scores[kept].tolist()
        assert [a['category_id'] - 1 for a in annotations] == found.labels[kept].tolist()
        for annotation, mask in zip(annotations, masks[kept], strict=True):
            assert (data.annToMask(annotation) == mask).all()
        assert read(tmp_path / f'out/overlay/{picture}.jpg').shape == cv2.imread(str(path)).shape
    assert total > 3


def test_unlikely_objects_are_left_out(effseg, images, tmp_path):
    scores = inference(effseg, images / 'a.png').pred_instances.scores
    limit = float(scores.median())
    predict(effseg, images / 'a.png', tmp_path / 'out', score_thr=limit)
    found = json.loads((tmp_path / 'out/coco.json').read_text())['annotations']
    assert 0 < len(found) <= (scores >= limit).sum() < len(scores)
    assert min(a['score'] for a in found) >= limit


def test_panels_need_no_setting(files, images, tmp_path):
    model = init_model(files / 'sparse.py', files / 'sparse.pth', device='cpu')
    predict(model, images / 'a.png', tmp_path / 'out', formats=['panels'])
    assert read(tmp_path / 'out/panels/a.jpg').shape[1] == 5 * (480 + 12)


@pytest.mark.parametrize(('formats', 'message'), [
    (['png'], r"formats must be of \('labels', .*got \['png'\]"),
    (['panels'], "'panels' is for SparseRefineSegmentor, got EncoderDecoder")])
def test_formats_that_do_not_fit(plain, images, tmp_path, formats, message):
    with pytest.raises(ValueError, match=message):
        predict(plain, images, tmp_path / 'out', formats=formats)
    assert not (tmp_path / 'out').exists()


def test_a_pipeline_that_loads_something_else(plain, images):
    """Of more channels than a color picture, say."""
    plain = init_model(config('x', model=segmentor_cfg(), **NAMES), device='cpu')
    plain.cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadSingleRSImageFromFile'), dict(type='PackSegInputs')]
    with pytest.raises(ValueError, match='loads pictures by LoadSingleRSImageFromFile'):
        inference(plain, images / 'a.png')


# ---- Which pictures ----


def test_frames_of_a_video(plain, tmp_path):
    (tmp_path / 'in').mkdir()
    video(tmp_path / 'in/clip.avi', count=3)
    predict(plain, tmp_path / 'in/clip.avi', tmp_path / 'out', formats=('labels', 'coco'))
    capture = cv2.VideoCapture(str(tmp_path / 'in/clip.avi'))
    for k in range(3):
        expected = inference(plain, capture.read()[1]).pred_sem_seg.data[0].numpy()
        assert (read(tmp_path / f'out/labels/clip/{k:06d}.png') == expected).all()
    images = json.loads((tmp_path / 'out/coco.json').read_text())['images']
    assert [one['file_name'] for one in images] == [f'clip/{k:06d}.jpg' for k in range(3)]


def test_pictures_of_every_kind(plain, tmp_path):
    """Gray, with a palette, with alpha: the colors as they are seen, on any ground."""
    color = noise(40, 56)
    gray = color[..., 0]
    palette = Image.fromarray(color[..., ::-1]).quantize(16)
    save(tmp_path / 'in/gray.png', gray)
    palette.save(tmp_path / 'in/palette.png')
    Image.fromarray(np.dstack([color[..., ::-1], gray])).save(tmp_path / 'in/alpha.png')
    save(tmp_path / 'in/deep.png', color.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / 'in/float.tif'), color.astype(np.float32) * 257,
                [cv2.IMWRITE_TIFF_COMPRESSION, 1])  # none: the default one loses digits
    done = predict(plain, tmp_path / 'in', tmp_path / 'out', white=65535)
    assert not done.failed and done.written == 5
    seen = dict(gray=np.dstack([gray] * 3), palette=np.array(palette.convert('RGB'))[..., ::-1],
                alpha=color, deep=color, float=color)
    for name, picture in seen.items():
        expected = inference(plain, np.ascontiguousarray(picture)).pred_sem_seg.data[0].numpy()
        assert (read(tmp_path / f'out/labels/{name}.png') == expected).all(), name


def test_more_than_8_bits_need_white(plain, tmp_path):
    save(tmp_path / 'in/deep.png', np.full((40, 56, 3), 4095, np.uint16))
    done = predict(plain, tmp_path / 'in', tmp_path / 'out')
    assert 'deep.png holds uint16 numbers per channel' in done.failed[0] and len(done.failed) == 1
    assert '--white' in done.failed[0]
    done = predict(plain, tmp_path / 'in', tmp_path / 'out', white=1023)
    assert 'values from 4095 to 4095; they have to be from 0 to white, 1023' in done.failed[0]


@pytest.mark.parametrize('upright', [False, True])
def test_a_picture_that_was_taken_sideways(plain, effseg, tmp_path, upright):
    """As stored, or as seen; a detector reads it as its own pipeline does."""
    stored = noise(40, 56)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'in').mkdir()
    Image.fromarray(stored[..., ::-1]).save(tmp_path / 'in/a.png', exif=exif)
    done = predict(plain, tmp_path / 'in', tmp_path / 'out', upright=upright)
    assert done.turned == [tmp_path / 'in/a.png'] and not done.failed
    seen = np.ascontiguousarray(np.rot90(stored, -1)) if upright else stored
    expected = inference(plain, seen).pred_sem_seg.data[0].numpy()
    assert (read(tmp_path / 'out/labels/a.png') == expected).all()
    if not upright:
        predict(effseg, tmp_path / 'in', tmp_path / 'objects')
        image, = json.loads((tmp_path / 'objects/coco.json').read_text())['images']
        assert (image['height'], image['width']) == (56, 40)
        assert inference(effseg, tmp_path / 'in/a.png').ori_shape == (56, 40)


# ---- Going on, and what is wrong ----


def test_a_second_call_goes_on(plain, images, tmp_path):
    out = tmp_path / 'out'
    predict(plain, images, out, formats=('labels', 'coco'))
    before = written(out)
    (out / 'labels/sub/b.png').unlink()
    (out / 'labels/a.png').write_bytes(b'mine')
    save(images / 'd.png', noise(40, 56))
    done = predict(plain, images, out, formats=('labels', 'coco'))
    assert (done.written, done.skipped) == (2, 2)
    after = written(out)
    assert after['labels/a.png'] == b'mine' and set(after) > set(before)
    assert after['labels/sub/b.png'] == before['labels/sub/b.png']
    assert len(json.loads(after['coco.json'])['images']) == 4
    done = predict(plain, images, out, formats=('labels', 'coco'), force=True)
    assert (done.written, done.skipped) == (4, 0)
    assert written(out)['labels/a.png'] == before['labels/a.png']


def test_broken_pictures_are_named_and_the_others_are_done(plain, images, tmp_path):
    content = (images / 'a.png').read_bytes()
    (images / 'sub/a_cut.png').write_bytes(content[:len(content) // 2])
    (images / 'empty.jpg').write_bytes(b'')
    (images / 'sub/no.mp4').write_bytes(b'no video')
    done = predict(plain, images, tmp_path / 'out')
    assert done.written == 3 and not done.stopped
    assert [Path(line.split(' ')[0]).relative_to(images).as_posix() for line in done.failed] == [
        'empty.jpg', 'sub/a_cut.png', 'sub/no.mp4']
    assert sorted(written(tmp_path / 'out')) == ['labels/a.png', 'labels/sub/b.png',
                                                 'labels/sub/c.png']


@pytest.mark.parametrize('error', [RuntimeError('out of memory'), MemoryError('no memory')])
def test_a_picture_that_cannot_be_labeled(plain, images, tmp_path, monkeypatch, error):
    def labeled(model, image):
        if image.shape[0] == 33:
            raise error
        return inference(model, image)

    monkeypatch.setattr(apis, 'inference', labeled)
    done = predict(plain, images, tmp_path / 'out')
    assert done.written == 2 and done.failed == [f'{images}/sub/b.png: {error}']


def test_a_full_disk_stops_the_work(plain, images, tmp_path, monkeypatch):
    """What was written before stays; no half file; the next call goes on."""
    write = Path.write_bytes

    def full(path, content):
        if '.b.png' in path.name:
            write(path, content[:1])
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(path, content)

    monkeypatch.setattr(Path, 'write_bytes', full)
    done = predict(plain, images, tmp_path / 'out')
    assert done.stopped and done.written == 1 and len(done.failed) == 1
    assert 'No space left on device' in done.failed[0] and 'labels/sub/b.png' in done.failed[0]
    assert list(written(tmp_path / 'out')) == ['labels/a.png']
    monkeypatch.undo()
    done = predict(plain, images, tmp_path / 'out')
    assert (done.written, done.skipped, done.failed) == (2, 1, [])


# ---- The command ----


@pytest.fixture
def run(root, files, tmp_path, monkeypatch, capsys, loading):
    """Runs the tool in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(root / 'tools'))

    def run(*line, name='plain', weights='plain'):
        for module in ('predict', 'command_line'):
            sys.modules.pop(module, None)
        config = name if '::' in name or '://' in name else files / f'{name}.py'
        start = [config, *([files / f'{weights}.pth'] if weights else [])]
        monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, [*start, *line]), '--device',
                                          'cpu'])
        code = 0
        try:
            importlib.import_module('predict').main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err + (code if isinstance(code, str) else '')

    yield run
    for module in ('predict', 'command_line'):
        sys.modules.pop(module, None)


def test_help_is_light(root):
    """mim runs it first, and takes ``--gpus`` in it for an old tool."""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-X', 'importtime',
                           root / 'tools/predict.py', '-h'], capture_output=True, text=True)
    assert done.returncode == 0 and '--gpus' not in done.stdout
    for argument in ('CONFIG [CHECKPOINT] INPUT', '--out', '--out-format', '--force', '--launcher',
                     'labels, overlay, panels, coco', '--upright', '--white', '--backend'):
        assert argument in done.stdout
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {'torch', 'mmseg', 'mmdet', 'mmcv', 'matplotlib'}
    tree = ast.parse((root / 'tools/predict.py').read_text())
    top = {alias.name if isinstance(node, ast.Import) else node.module for node in tree.body
           if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    assert top <= {'__future__', 'argparse', 'contextlib', 'pathlib', 're', 'statistics', 'sys',
                   'typing', 'command_line'}


def test_the_command(run, images, tmp_path, plain):
    code, out, err = run('in', '--out', 'out', '--out-format', 'labels', 'overlay')
    assert code == 0 and err == '' and 'pictures labeled: 3; out holds the results' in out
    assert sorted(written(tmp_path / 'out')) == [
        f'{form}/{name}.{suffix}' for form, suffix in (('labels', 'png'), ('overlay', 'jpg'))
        for name in ('a', 'sub/b', 'sub/c')]
    expected = inference(plain, images / 'a.png').pred_sem_seg.data[0].numpy()
    assert (read(tmp_path / 'out/labels/a.png') == expected).all()
    code, out, err = run('in/a.png', 'in/**/c.png', '--out', 'out')
    assert code == 0 and 'pictures labeled: 0, 2 were there (--force labels them again)' in out


def test_failures_are_listed_at_the_end(run, images):
    (images / 'bad.png').write_bytes(b'')
    code, out, err = run('in', '--out', 'out')
    assert code == 1 and 'pictures labeled: 3' in out
    assert err.splitlines()[-2:] == [
        'predict.py: pictures that failed: 1',
        f'  {images}/bad.png is no image that OpenCV can read, or is cut off']


def test_times_of_the_stages(run, images):
    """The medians of all pictures but the first."""
    code, out, _ = run('in', '--out', 'out', '--times', name='sparse', weights='sparse')
    assert code == 0 and 'Median of 2 pictures' in out and 'low-resolution pass' in out
    shares = [float(line.split('│')[3].strip().rstrip('%')) for line in out.splitlines()
              if '%' in line and '│' in line]
    assert shares[-1] == 100 and sum(shares[:-1]) == pytest.approx(100, abs=0.5)
    code, _, err = run('in', '--out', 'new', '--times')
    assert code and '--times: StageClock times the stages of a SparseRefineSegmentor' in err


def test_weights_named_in_the_config_are_enough(run, files, images, tmp_path):
    """Of CRM's wrappers, which name those of both parts; other configs need a checkpoint."""
    whole = load_model(files / 'refined.py', files / 'refined.pth', 'cpu')
    for part in ('segmentor', 'refiner'):
        torch.save(getattr(whole, part).state_dict(), tmp_path / f'{part}.pth')
    parts = [f'model.{part}_checkpoint={tmp_path}/{part}.pth' for part in ('segmentor', 'refiner')]
    code, _, err = run('in', '--out', 'out', '--cfg-options', *parts, name='refined', weights=None)
    assert code == 0, err
    assert run('in', '--out', 'whole', name='refined', weights='refined')[0] == 0
    assert written(tmp_path / 'out') == written(tmp_path / 'whole')
    assert 'needs a checkpoint' in run('in', '--out', 'out', weights=None)[2]


def test_a_model_of_the_zoo(run, images, tmp_path):
    code, _, err = run('in/a.png', '--out', 'out', name='mmsparse://wnet_hrf', weights=None)
    assert code == 0, err
    assert read(tmp_path / 'out/labels/a.png').shape == (40, 56)


@pytest.mark.parametrize(('line', 'names', 'message'), [
    (['nothing', '--out', 'out'], {}, 'the input nothing does not exist'),
    (['in/*.jpg', '--out', 'out'], {}, 'no input matches in/*.jpg'),
    (['in', '--out', 'in/out'], {}, 'the output folder in/out lies within the input in'),
    (['in', '--out', 'in/a.png/out'], {}, 'in/a.png/out'),
    (['in', '--out', 'out'], dict(name='nothing'), 'nothing.py does not exist'),
    (['in', '--out', 'out'], dict(name='mmseg::fcn/nothing.py'), 'nothing.py'),
    (['in', '--out', 'out'], dict(weights='nothing'), 'nothing.pth does not exist'),
    (['in', '--out', 'out'], dict(weights='effseg'), 'effseg.pth does not fit (EncoderDecoder'),
    (['in', '--out', 'out'], dict(name='effseg'), 'plain.pth does not fit (MaskRCNN'),
    (['in', '--out', 'out', '--out-format', 'panels'], {}, "'panels' is for SparseRefineSegmentor"),
    (['in', '--out', 'out', '--out-format', 'labels'], dict(name='effseg', weights='effseg'),
     'the model finds objects, which may overlap, and gives no class map'),
    (['in', '--out', 'out', '--backend', 'openvino'], dict(name='effseg', weights='effseg'),
     "backend 'openvino' with dtype 'float32' is for segmentors of mmseg, got MaskRCNN"),
])
def test_one_line_says_what_is_wrong(run, images, tmp_path, line, names, message):
    code, out, err = run(*line, **names)
    assert code not in (0, None) and message in err and '\n' not in err
    assert not [p for p in tmp_path.rglob('*') if p.is_file() and images not in p.parents]


def test_a_command_line_that_is_wrong(run, images, capsys):
    for line, message in ((['--out', 'out'], 'name an INPUT after the checkpoint'),
                          (['in'], 'the following arguments are required: --out'),
                          (['in', '--out', 'out', '--score-thr', '2'], 'must be from 0 to 1'),
                          (['in', '--out', 'out', '--white', '0'], '--white must be above 0')):
        code, _, err = run(*line)
        assert code == 2 and message in err


def test_names_of_other_classes(run, files, images):
    torch.save(torch.load(files / 'plain.pth') | dict(
        meta=dict(dataset_meta=dict(classes=('a',)))), files / 'odd.pth')
    code, _, err = run('in', '--out', 'out', weights='odd')
    assert code and 'the model gives class ' in err and 'name 1 classes' in err


def test_ctrl_c(run, images, tmp_path, monkeypatch):
    """What was finished is whole, nothing else is there, and the same command goes on.

    The exception that Python makes of the signal, not the signal: that one ended a process of the
    tests now and then.
    """
    calls = []

    def labeled(model, image):
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inference(model, image)

    monkeypatch.setattr(apis, 'inference', labeled)
    code, _, err = run('in', '--out', 'out', '--out-format', 'labels', 'coco')
    assert code == 130 and 'interrupted; what lies in out is whole' in err
    assert sorted(written(tmp_path / 'out')) == ['.parts/coco/a.json', 'labels/a.png']
    assert read(tmp_path / 'out/labels/a.png').shape == (40, 56)
    code, out, _ = run('in', '--out', 'out', '--out-format', 'labels', 'coco')
    assert code == 0 and 'pictures labeled: 2, 1 were there' in out
    run('in', '--out', 'once', '--out-format', 'labels', 'coco')
    assert written(tmp_path / 'out') == written(tmp_path / 'once')


def test_an_orientation_is_spoken_of(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'in').mkdir()
    for name in 'ab':
        Image.fromarray(noise(40, 56)).save(tmp_path / f'in/{name}.png', exif=exif)
    _, _, err = run('in', '--out', 'out')
    assert err.count('\n') == 1
    assert f'an EXIF orientation: 2, the first is {tmp_path}/in/a.png; see --upright' in err
    assert run('in', '--out', 'new', '--upright')[2] == ''
