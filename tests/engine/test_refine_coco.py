"""The masks of a COCO data set refined: nothing is lost, whatever happens on the way."""
import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from pycocotools.coco import COCO

from mmsparse.engine.refine_coco import refine_coco
from mmsparse.models.crm import RefinedDetector
from tests.models.crm.files import write_noise, write_refiner

SIZES = {'town/a.png': (96, 130), 'b.png': (80, 100), 'c.png': (40, 40)}
BOX = [[20, 20, 60, 20, 60, 70.5, 20, 70]]
PARTS = [[5, 5, 40, 5, 40, 40], [50, 50, 75, 50, 75, 78, 50, 78]]


def rle(height, width, compressed=True):
    mask = np.zeros((height, width), np.uint8)
    mask[10:50, 30:70] = 1
    if compressed:
        code = coco.encode(np.asfortranarray(mask))
        return dict(size=[height, width], counts=code['counts'].decode())
    flat = mask.flatten(order='F')
    ends = np.flatnonzero(np.diff(flat)) + 1
    return dict(size=[height, width], counts=np.diff([0, *ends, flat.size]).tolist())


def data_set():
    images = [dict(id=7, file_name='town/a.png', height=96, width=130, license=3),
              dict(id='b', file_name='b.png', height=80, width=100),
              dict(id=9, file_name='c.png', height=40, width=40)]
    objects = [
        dict(id=11, image_id=7, category_id=1, segmentation=BOX, bbox=[0, 0, 1, 1], area=1,
             iscrowd=0, attributes=dict(occluded=True)),
        dict(id=5, image_id=7, category_id=2, segmentation=PARTS, iscrowd=0, score=0.5),
        dict(id=3, image_id=7, category_id=1, segmentation=rle(96, 130), iscrowd=1),
        dict(id=4, image_id=7, category_id=1, segmentation=[[1, 1, 9, 1, 9, 9]], iscrowd=0),
        dict(id=20, image_id='b', category_id=1, segmentation=rle(80, 100), bbox=[1, 2, 3, 4]),
        dict(id=21, image_id='b', category_id=1, segmentation=rle(80, 100, False), iscrowd=0),
        dict(id=22, image_id='b', category_id=1, bbox=[1, 2, 3, 4], iscrowd=0)]
    return dict(info=dict(year=2026), licenses=[dict(id=3)], images=images, annotations=objects,
                categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])


def both_sides_of_one_half(model):
    """Spread and center the logits, which are below 0 everywhere at random weights."""
    last = [layer for layer in model.head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.weight.data.mul_(100)
    logits = []
    handle = last.register_forward_hook(lambda *args: logits.append(args[-1]))
    mask = torch.zeros(1, 96, 130)
    mask[:, 20:70, 20:60] = 1
    model.refine(torch.randint(0, 256, (1, 3, 96, 130), dtype=torch.uint8), mask)
    handle.remove()
    last.bias.data -= torch.cat([part.flatten() for part in logits]).median()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A thin refiner's config and weights, and pictures."""
    folder = tmp_path_factory.mktemp('coco')
    model = write_refiner(folder, both_sides_of_one_half, min_area=100)
    write_noise(folder / 'images', SIZES)
    return SimpleNamespace(folder=folder, images=folder / 'images', model=model)


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def read(path):
    return json.loads(path.read_text())


def by_id(data):
    return {annotation['id']: annotation for annotation in data['annotations']}


def refined_by_the_detector(model, path, *segmentations):
    """Masks by the wrapper of mmdet's detectors, from whole maps."""
    picture = cv2.imread(str(path))
    height, width = picture.shape[:2]
    masks = []
    for segmentation in segmentations:
        code = coco.frPyObjects(segmentation, height, width) if not isinstance(
            segmentation, dict) or isinstance(segmentation['counts'], list) else segmentation
        masks.append(coco.decode(coco.merge(code) if isinstance(code, list) else code))
    wrapper = SimpleNamespace(refiner=model, expand=0.25, min_area=99)
    return RefinedDetector.refine_masks(
        wrapper, torch.from_numpy(picture.transpose(2, 0, 1).copy()),
        torch.from_numpy(np.stack(masks)).bool()).numpy()


def test_every_annotation_is_there(files, tmp_path):
    data = data_set()
    seen = []
    done = refine_coco(files.model, files.images, write(tmp_path / 'in.json', data),
                       tmp_path / 'out.json', on_image=lambda *n: seen.append(n))
    assert done == (4, 3, []) and seen == [(1, 2), (2, 2)]
    out = read(tmp_path / 'out.json')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.json', 'out.json']
    assert [a['id'] for a in out['annotations']] == [a['id'] for a in data['annotations']]
    assert {k: out[k] for k in out if k != 'annotations'} == {
        k: data[k] for k in data if k != 'annotations'}
    before, after = by_id(data), by_id(out)
    for kept in (3, 4, 22):  # a crowd, a small one, one without a mask
        assert after[kept] == before[kept]
    coco_data = COCO(str(tmp_path / 'out.json'))
    for name, ids in (('town/a.png', (11, 5)), ('b.png', (20, 21))):
        expected = refined_by_the_detector(
            files.model, files.images / name, *(before[i]['segmentation'] for i in ids))
        for i, mask in zip(ids, expected, strict=True):
            assert 0 < mask.sum() < mask.size
            np.testing.assert_array_equal(coco_data.annToMask(after[i]), mask)
            rows, columns = np.nonzero(mask)
            assert after[i]['area'] == mask.sum() and after[i]['bbox'] == [
                columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert {k: v for k, v in after[i].items() if k in before[i] and k not in (
                'segmentation', 'bbox', 'area')} == {
                k: v for k, v in before[i].items() if k not in ('segmentation', 'bbox', 'area')}


def test_what_fails_stays_and_is_said(files, tmp_path):
    data = data_set()
    data['images'][1]['file_name'] = 'nowhere.png'
    data['images'][2].update(height=50)
    data['annotations'] += [
        dict(id=30, image_id=7, segmentation=[[1, 2, 3, 4]]),
        dict(id=31, image_id=7, segmentation=rle(96, 131)),
        dict(id=32, image_id=7, segmentation=dict(size=[96, 130], counts='???')),
        dict(id=33, image_id=9, segmentation=BOX)]
    done = refine_coco(files.model, files.images, write(tmp_path / 'in.json', data),
                       tmp_path / 'out.json')
    for line, (name, message) in zip(done.failed, (
            ('town/a.png', 'annotation 30: a polygon is a list of three or more'),
            ('town/a.png', r'annotation 31: its run-length code is of [96, 131] pixels'),
            ('town/a.png', 'annotation 32: counts'), ('nowhere.png', 'nowhere.png'),
            ('c.png', 'the picture has [40, 40] pixels, the JSON says [50, 40]')), strict=True):
        assert line.startswith(f'{files.images / name}: ') and message in line, line
    before, after = by_id(data), by_id(read(tmp_path / 'out.json'))
    assert {i for i in before if before[i] != after[i]} == {11, 5} and done.refined == 2


def test_an_interruption_loses_nothing(files, tmp_path):
    coarse = write(tmp_path / 'in.json', data_set())
    refine_coco(files.model, files.images, coarse, tmp_path / 'whole.json')
    out, model = tmp_path / 'out.json', copy.copy(files.model)

    def stop(done, total):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        refine_coco(model, files.images, coarse, out, on_image=stop)
    assert not out.exists()
    journal, = tmp_path.glob('out.json.journal-*')
    with journal.open('ab') as file:
        file.write(b'["b", [[20, {"segm')  # cut off while it was written
    journal.rename(tmp_path / 'out.json.journal-1')  # of another process
    with pytest.raises(ValueError, match=r'journal-1 is left of other annotations or another'):
        refine_coco(model, files.images, coarse, out, setting='another model')
    (files.images / 'town/a.png').rename(files.images / 'town/hidden.png')
    try:  # what is finished is not looked at again
        assert refine_coco(model, files.images, coarse, out).failed == []
    finally:
        (files.images / 'town/hidden.png').rename(files.images / 'town/a.png')
    assert read(out) == read(tmp_path / 'whole.json') and not list(tmp_path.glob('*.journal-*'))


@pytest.mark.parametrize(('change', 'message'), [
    (lambda d: d.pop('images'), 'images must be a list of objects'),
    (lambda d: d['annotations'][0].pop('id'), 'an entry of annotations has no id'),
    (lambda d: d['annotations'][0].update(id=5), 'ids of annotations must be unique'),
    (lambda d: d['annotations'][0].update(image_id=1), '1 annotations are of images .* is 11')])
def test_no_coco_json(files, tmp_path, change, message):
    data = data_set()
    change(data)
    with pytest.raises(ValueError, match=f'in.json.*{message}'):
        refine_coco(files.model, files.images, write(tmp_path / 'in.json', data),
                    tmp_path / 'out.json')
    assert [path.name for path in tmp_path.iterdir()] == ['in.json']


@pytest.mark.slow
def test_the_command_in_two_processes(root, files, tmp_path):
    data = data_set()
    data['images'][2]['file_name'] = 'nowhere.png'
    data['annotations'].append(dict(id=33, image_id=9, segmentation=BOX))
    coarse = write(tmp_path / 'in.json', data)

    def run(*args):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', *args, files.images, coarse, '--config',
             files.folder / 'crm.py', '--checkpoint', files.folder / 'crm.pth', '--device', 'cpu',
             '--out', tmp_path / 'out.json'], capture_output=True, text=True, cwd=root)
    tool = str(root / 'tools/refine.py')
    done = run('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', tool,
               '--launcher', 'pytorch')
    assert done.returncode == 1 and 'not refined:\n' in done.stderr, done.stderr
    assert f'{files.images / "nowhere.png"}: ' in done.stderr
    assert '4 masks are refined, 4 annotations stay as they are' in done.stdout
    refine_coco(files.model, files.images, coarse, tmp_path / 'one.json')
    assert read(tmp_path / 'out.json') == read(tmp_path / 'one.json')
