"""Boundary AP: boundaries by loops, AP on paper and by an oracle, the metric in mmdet's place."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from mmsparse.evaluation import BoundaryCocoMetric, boundary_width, mask_boundary
from mmsparse.evaluation.boundary_coco import BoundaryCOCOeval, code_boundary, with_evaluators
from tests.evaluation.detections import (
    CLASSES,
    annotation_file,
    box_of,
    encode,
    random_images,
    run,
    samples,
    shifted,
    square,
)
from tests.examples import examples

from . import detection_oracle as oracle

# ---- boundaries ----------------------------------------------------------------------------------

def loop_boundary(mask, width):
    """Pixels that see something outside within `width` rows and columns."""
    height, breadth = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(breadth):
            found[y, x] = mask[y, x] and any(
                not (0 <= j < height and 0 <= i < breadth and mask[j, i])
                for j in range(y - width, y + width + 1)
                for i in range(x - width, x + width + 1))
    return found


@st.composite
def masks(draw):
    """Blocks with holes, so that something remains of an erosion; empty and full ones too."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    mask = rng.random((height, width)) < draw(st.sampled_from([0, 0.5, 0.95, 1]))
    for _ in range(draw(st.integers(0, 2))):
        y, x = rng.integers(height), rng.integers(width)
        mask[y:y + rng.integers(1, 12), x:x + rng.integers(1, 12)] = True
    return mask


@given(masks(), st.integers(1, 4))
@examples(150)
def test_boundaries_against_a_loop(mask, width):
    kept = mask.copy()
    found = mask_boundary(mask, width)
    assert found.dtype == bool and np.array_equal(found, loop_boundary(mask, width))
    assert np.array_equal(mask, kept)


@given(masks(), st.sampled_from([0.02, 0.1, 0.3]))
@examples(150)
def test_boundaries_of_codes_are_those_of_whole_images(mask, ratio):
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    expected = oracle.boundary(mask, ratio)
    assert code_boundary(code, ratio) == coco.encode(
        np.asfortranarray(expected.astype(np.uint8)))


@pytest.mark.parametrize(('size', 'width'), [
    ((480, 640), 16), ((640, 480), 16), ((1, 1), 1), ((20, 20), 1), ((4000, 6000), 144),
    ((100, 100), 3), ((1024, 2048), 46), ((225, 300), 8), ((375, 500), 12)])
def test_widths(size, width):
    """The last two are 7.5 and 12.5 wide: halves go to the even side, as in the authors' code."""
    assert boundary_width(size) == width
    assert boundary_width((1024, 2048), 0.005) == 11


# ---- AP on paper ---------------------------------------------------------------------------------

def one_pixel_larger():
    """40x40 and 42x42 around it in 100x100, where a boundary is 3 wide.

    Masks: 1600 / 1764 = 0.907. Boundaries of 1600 - 34^2 = 444 and 1764 - 36^2 = 468 pixels share
    1600 - 36^2 = 304: 304 / 608 = 0.5.
    """
    size = (100, 100)
    truth = dict(mask=square(size, 20, 30, 60, 70), category=1)
    found = dict(mask=square(size, 19, 29, 61, 71), category=1, score=0.9)
    return dict(size=size, truths=[truth], detections=[found])


def test_ap_on_paper(tmp_path):
    """0.5 matches at the first of ten thresholds, 0.907 at nine. The object is of medium size."""
    images = [one_pixel_larger()]
    path = annotation_file(tmp_path / 'a.json', images)
    figures = run(samples(images), dict(
        type='mmsparse.BoundaryCocoMetric', ann_file=path, metric=['segm', 'boundary']))
    assert figures == {
        'coco/segm_mAP': 0.9, 'coco/segm_mAP_50': 1, 'coco/segm_mAP_75': 1,
        'coco/segm_mAP_s': -1, 'coco/segm_mAP_m': 0.9, 'coco/segm_mAP_l': -1,
        'coco/boundary_mAP': 0.1, 'coco/boundary_mAP_50': 1, 'coco/boundary_mAP_75': 0,
        'coco/boundary_mAP_s': -1, 'coco/boundary_mAP_m': 0.1, 'coco/boundary_mAP_l': -1}


def test_the_smaller_of_the_two_counts(tmp_path):
    """A ring that is the boundary itself has boundary IoU near 1, and mask IoU 444 / 1600."""
    image = one_pixel_larger()
    truth = image['truths'][0]['mask']
    ring = oracle.boundary(truth)
    assert ring.sum() == 444
    assert oracle.ratio(oracle.boundary(ring), oracle.boundary(truth), False) == 1
    image['detections'][0]['mask'] = ring
    path = annotation_file(tmp_path / 'a.json', [image])
    assert run(samples([image]), dict(type='mmsparse.BoundaryCocoMetric', ann_file=path))[
        'coco/boundary_mAP_50'] == 0


def test_the_border_of_the_image_is_a_boundary(tmp_path):
    """The left half of 100x100, found two columns too narrow.

    Boundaries of 5000 - 94 * 44 = 864 and 4800 - 94 * 42 = 852 pixels share 4800 - 94 * 44 = 664:
    0.631. Were the border none, columns 47 to 49 and 45 to 47 would share one of five.
    """
    size = (100, 100)
    image = dict(size=size, truths=[dict(mask=square(size, 0, 0, 100, 50), category=1)],
                 detections=[dict(mask=square(size, 0, 0, 100, 48), category=1, score=1.)])
    path = annotation_file(tmp_path / 'a.json', [image])
    assert run(samples([image]), dict(type='mmsparse.BoundaryCocoMetric', ann_file=path))[
        'coco/boundary_mAP'] == 0.3


def test_what_lies_in_a_crowd_is_no_error(tmp_path):
    """Deep in it, where its outline is far: by boundaries the two have nothing in common."""
    size = (100, 100)
    lone, within = square(size, 0, 0, 20, 20), square(size, 50, 50, 70, 70)
    image = dict(size=size, truths=[dict(mask=lone, category=1), dict(
        mask=square(size, 30, 30, 100, 100), category=1, crowd=True)],
        detections=[dict(mask=lone, category=1, score=0.5),
                    dict(mask=within, category=1, score=0.9)])
    path = annotation_file(tmp_path / 'a.json', [image])
    metric = dict(type='mmsparse.BoundaryCocoMetric', ann_file=path)
    assert run(samples([image]), metric)['coco/boundary_mAP'] == 1
    image['truths'][1]['crowd'] = False
    metric['ann_file'] = annotation_file(tmp_path / 'b.json', [image])
    assert run(samples([image]), metric)['coco/boundary_mAP'] < 0.5


# ---- AP against the oracle -----------------------------------------------------------------------

@pytest.mark.parametrize('seed', range(4))
def test_all_figures_against_the_oracle(tmp_path, seed):
    images = random_images(seed)
    path = annotation_file(tmp_path / 'a.json', images)
    figures = run(samples(images, as_codes=seed % 2 == 1, mask_scores=seed > 1), dict(
        type='mmsparse.BoundaryCocoMetric', ann_file=path, metric=['segm', 'boundary']))
    expected = (oracle.figures(images, (1, 2, 3), 'segm')
                | oracle.figures(images, (1, 2, 3), 'boundary'))
    assert figures == {f'coco/{key}': pytest.approx(value, abs=1.5e-3)
                       for key, value in expected.items()}
    assert 0.1 < expected['boundary_mAP'] < expected['segm_mAP'] - 0.03


def test_the_width_is_a_setting(tmp_path):
    images = random_images(5)
    path = annotation_file(tmp_path / 'a.json', images)
    figures = run(samples(images), dict(
        type='mmsparse.BoundaryCocoMetric', ann_file=path, dilation_ratio=0.05))
    expected = oracle.figures(images, (1, 2, 3), 'boundary', width=0.05)
    assert figures == {f'coco/{key}': pytest.approx(value, abs=1.5e-3)
                       for key, value in expected.items()}
    assert expected != oracle.figures(images, (1, 2, 3), 'boundary')


def test_each_boundary_is_computed_once_and_only_where_it_is_asked_for(tmp_path, monkeypatch):
    images = random_images(6)
    path = annotation_file(tmp_path / 'a.json', images)
    seen = []
    monkeypatch.setattr('mmsparse.evaluation.boundary_coco.code_boundary',
                        lambda code, ratio: seen.append(code) or code_boundary(code, ratio))
    run(samples(images), dict(type='mmsparse.BoundaryCocoMetric', ann_file=path))
    pairs = [(image, {t['category'] for t in image['truths']},
              {d['category'] for d in image['detections']}) for image in images]
    expected = sum(sum(x['category'] in true & found for x in image['truths'] + image['detections'])
                   for image, true, found in pairs)
    assert len(seen) == expected < sum(
        len(image['truths'] + image['detections']) for image in images)


# ---- in mmdet's place ----------------------------------------------------------------------------

def test_classes_have_their_figures_beside_those_of_mmdet(tmp_path):
    """One list of evaluators, no name twice; `CocoMetric` gives what it gives alone."""
    images = random_images(0)
    path = annotation_file(tmp_path / 'a.json', images)
    plain = dict(type='CocoMetric', ann_file=path, metric=['bbox', 'segm'], classwise=True)
    ours = dict(type='mmsparse.BoundaryCocoMetric', ann_file=path, classwise=True)
    both = run(samples(images), plain, ours)
    assert both.items() >= run(samples(images), plain).items()
    one = run(samples(images), ours | dict(metric=['bbox', 'segm', 'boundary']))
    assert one == pytest.approx(both, nan_ok=True)
    for i, name in enumerate(CLASSES, 1):
        alone = oracle.figures(images, [i], 'boundary')['boundary_mAP']
        assert both[f'coco/boundary_{name}_precision'] == pytest.approx(alone, abs=1.5e-3)


def test_annotations_of_the_dataset(tmp_path):
    """Without a file, as `CocoMetric`: areas of objects are then those of their boxes."""
    images = random_images(1)
    for image in images:
        image['truths'] = [t for t in image['truths'] if not t['crowd']]
    predictions = list(samples(images))
    for sample, image in zip(predictions, images, strict=True):
        sample.set_metainfo(dict(instances=[
            dict(bbox=box_of(t['mask']), bbox_label=t['category'] - 1, mask=encode(t['mask']),
                 ignore_flag=0) for t in image['truths']]))
    figures = run(predictions, dict(type='mmsparse.BoundaryCocoMetric'))
    expected = oracle.figures(images, (1, 2, 3), 'boundary')
    for name in ('boundary_mAP', 'boundary_mAP_50', 'boundary_mAP_75'):
        assert figures[f'coco/{name}'] == pytest.approx(expected[name], abs=1.5e-3)


def test_files_and_format_only(tmp_path):
    images = random_images(2, count=2)
    path = annotation_file(tmp_path / 'a.json', images)
    metric = dict(type='mmsparse.BoundaryCocoMetric', ann_file=path, format_only=True,
                  outfile_prefix=str(tmp_path / 'out'))
    assert run(samples(images), metric) == {}
    assert sorted(p.name for p in tmp_path.glob('out*')) == ['out.bbox.json', 'out.segm.json']
    found = json.loads((tmp_path / 'out.segm.json').read_text())
    assert len(found) == sum(len(image['detections']) for image in images)


def test_metric_items_and_several_processes(tmp_path):
    images = random_images(3, count=2)
    path = annotation_file(tmp_path / 'a.json', images)
    ours = dict(type='mmsparse.BoundaryCocoMetric', ann_file=path)
    alone = run(samples(images), ours)
    assert run(samples(images), ours | dict(use_mp_eval=True)) == alone
    items = run(samples(images), ours | dict(metric_items=['mAP', 'AR@100']))
    assert items.keys() == {'coco/boundary_mAP', 'coco/boundary_AR@100'}
    assert items['coco/boundary_mAP'] == alone['coco/boundary_mAP']


def test_images_without_objects_or_detections(tmp_path):
    images = random_images(4, count=3)
    images[0]['detections'] = []
    images[1]['truths'] = []
    path = annotation_file(tmp_path / 'a.json', images)
    figures = run(samples(images), dict(type='mmsparse.BoundaryCocoMetric', ann_file=path))
    expected = oracle.figures(images, (1, 2, 3), 'boundary')
    assert figures == {f'coco/{key}': pytest.approx(value, abs=1.5e-3)
                       for key, value in expected.items()}
    for image in images:
        image['detections'] = []
    assert run(samples(images), dict(type='mmsparse.BoundaryCocoMetric', ann_file=path)) == {}


def test_evaluated_twice(tmp_path):
    """As in training: the second time boundaries of objects are known, and the figures new ones."""
    images = random_images(0)
    metric = BoundaryCocoMetric(annotation_file(tmp_path / 'a.json', images))
    metric.dataset_meta = dict(classes=CLASSES)

    def evaluate(images):
        for sample in samples(images):
            metric.process({}, [sample.to_dict()])
        return metric.evaluate(len(images))

    first = evaluate(images)
    for image in images:
        image['detections'] = [t | dict(score=1.) for t in image['truths'] if not t['crowd']]
    assert evaluate(images)['coco/boundary_mAP'] == 1 > first['coco/boundary_mAP']
    for image, fresh in zip(images, random_images(0), strict=True):
        image['detections'] = fresh['detections']
    assert evaluate(images) == first


@pytest.mark.parametrize(('arguments', 'error', 'message'), [
    (dict(metric='edge'), KeyError, 'edge'),
    (dict(metric=['boundary', 'edge']), KeyError, 'edge'),
    (dict(metric=[]), KeyError, 'names no metric'),
    (dict(dilation_ratio=0), ValueError, r'dilation_ratio must be in \(0, 1\), got 0'),
    (dict(dilation_ratio=2), ValueError, 'got 2'),
    (dict(clas_wise=True), TypeError, 'clas_wise')])
def test_wrong_settings_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        BoundaryCocoMetric(**arguments)


def test_detections_without_masks(tmp_path):
    images = random_images(0, count=1)
    path = annotation_file(tmp_path / 'a.json', images)
    predictions = list(samples(images))
    del predictions[0].pred_instances.masks
    with pytest.raises(KeyError, match='boundary is not in results'):
        run(predictions, dict(type='mmsparse.BoundaryCocoMetric', ann_file=path))


def test_an_mmdet_that_names_its_evaluator_otherwise_is_named():
    with pytest.raises(ValueError, match='of the installed mmdet has no Evaluator'):
        with_evaluators(BoundaryCocoMetric.compute_metrics, Evaluator=object)


# ---- real data -----------------------------------------------------------------------------------

def test_objects_of_coco(tmp_path):
    """Polygons, holes, crowds, boxes at borders: IoUs of shifted masks against dense ones."""
    root = Path(os.environ.get('MMSPARSE_DATA', 'data')) / 'coco128'
    path = root / 'annotations' / 'instances_train2017.json'
    if not path.exists():
        pytest.skip(f'needs {path}')
    truth = COCO(path)
    images = sorted(truth.getImgIds())[:12]
    rng = np.random.default_rng(0)
    results = []
    for annotation in truth.loadAnns(truth.getAnnIds(imgIds=images)):
        mask = shifted(rng, truth.annToMask(annotation).astype(bool), 4)
        results.append(dict(image_id=annotation['image_id'], segmentation=encode(mask),
                            category_id=annotation['category_id'], score=float(rng.random())))
    evaluator = BoundaryCOCOeval(truth, truth.loadRes(results), 'segm')
    evaluator.params.imgIds = images
    evaluator.evaluate()
    checked = 0
    for (image, category), found in evaluator.ious.items():
        if len(found) == 0:
            continue
        truths = [dict(mask=coco.decode(g['segmentation']).astype(bool), crowd=g['iscrowd'])
                  for g in evaluator._gts[image, category]]
        detections = sorted(evaluator._dts[image, category], key=lambda d: -d['score'])
        expected = [[oracle.overlap(dict(mask=coco.decode(d['segmentation']).astype(bool)), t,
                                    'boundary') for t in truths] for d in detections[:4]]
        np.testing.assert_allclose(found[:4], expected, atol=1e-12)
        checked += np.size(expected)
    assert checked > 50
