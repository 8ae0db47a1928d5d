"""The rules of LVIS on paper and by an oracle, and COCO's classes in a file of LVIS."""
import json

import numpy as np
import pytest

from mmsparse.evaluation import BoundaryLVISMetric
from mmsparse.evaluation.boundary_lvis import COCO_IDS, category_ids
from tests.evaluation.detections import (
    CLASSES,
    annotation_file,
    blob,
    random_images,
    run,
    samples,
    square,
)

from . import detection_oracle as oracle

LVIS = dict(neg_category_ids='negative', not_exhaustive_category_ids='not_exhaustive')
METRIC = 'mmsparse.BoundaryLVISMetric'
# as LVIS calls some of COCO's classes
LVIS_NAMES = {'person': 1, 'car_(automobile)': 3, 'television_set': 72, 'toothbrush': 90}


def object_at(top, category, **more):
    return dict(mask=square((100, 100), top, 10, top + 20, 30), category=category, **more)


def paper_images():
    """Class 1 is found; class 2 beside an error that cannot be one; class 3 after a certain error.

    In the first image nobody looked for class 2 and there is none of class 3; in the second not
    all objects of class 2 are annotated.
    """
    first = dict(
        size=(100, 100), negative={3}, not_exhaustive=set(), truths=[object_at(0, 1)],
        detections=[object_at(0, 1, score=0.9), object_at(40, 2, score=0.99),
                    object_at(70, 3, score=0.95)])
    second = dict(
        size=(100, 100), negative=set(), not_exhaustive={2},
        truths=[object_at(0, 2), object_at(40, 3)],
        detections=[object_at(0, 2, score=0.5), object_at(70, 2, score=0.6),
                    object_at(40, 3, score=0.8), object_at(70, 1, score=0.99)])
    return [first, second]


def test_the_rules_on_paper(tmp_path):
    """AP 1, 1 and 1/2. Were all looked for everywhere, the errors made it 1/2, 1/3 and 1/2."""
    images = paper_images()
    path = annotation_file(tmp_path / 'a.json', images, **LVIS)
    figures = run(samples(images), dict(type=METRIC, ann_file=path, classwise=True,
                                        metric=['bbox', 'segm', 'boundary']))
    for kind in ('bbox', 'segm', 'boundary'):
        assert figures[f'lvis/{kind}_mAP'] == round(2.5 / 3, 3)
    assert [figures[f'lvis/boundary_{name}_precision'] for name in CLASSES] == [1, 1, 0.5]
    for image in images:  # looked for everywhere, and all annotated
        image.update(negative={1, 2, 3}, not_exhaustive=set())
    path = annotation_file(tmp_path / 'b.json', images, **LVIS)
    assert run(samples(images), dict(type=METRIC, ann_file=path)) == {
        f'lvis/{kind}_{name}': value for kind in ('segm', 'boundary') for name, value in
        dict(mAP=0.444, mAP_50=0.444, mAP_75=0.444, mAP_s=0.444, mAP_m=-1, mAP_l=-1).items()}


def lvis_images(seed, **kwargs):
    rng = np.random.default_rng(seed + 100)
    images = random_images(seed, **kwargs)
    for image in images:
        for truth in image['truths']:
            truth['crowd'] = False
        present = {t['category'] for t in image['truths']}
        absent = {1, 2, 3} - present
        image['negative'] = {c for c in absent if rng.random() < 0.5}
        image['not_exhaustive'] = {c for c in present if rng.random() < 0.4}
    return images


@pytest.mark.parametrize('seed', range(3))
def test_all_figures_against_the_oracle(tmp_path, seed):
    images = lvis_images(seed, count=6, per_image=3)
    assert any(image['negative'] for image in images)
    path = annotation_file(tmp_path / 'a.json', images, **LVIS)
    figures = run(samples(images, as_codes=seed == 1),
                  dict(type=METRIC, ann_file=path, use_mp_eval=seed == 2))
    expected = {kind: oracle.figures(images, (1, 2, 3), kind, federated=True)
                for kind in ('segm', 'boundary')}
    assert figures == {f'lvis/{key}': pytest.approx(value, abs=1.5e-3)
                       for table in expected.values() for key, value in table.items()}
    assert expected['segm'] != oracle.figures(images, (1, 2, 3), 'segm')


def test_only_the_best_300_detections_of_an_image_count(tmp_path):
    """The 301st finds an object; those before it are of a class that nobody looked for."""
    size = (60, 60)
    rng = np.random.default_rng(0)
    truth = dict(mask=square(size, 10, 10, 40, 40), category=1)
    other = [dict(mask=blob(rng, size, 9), category=2, score=1 - i / 1000) for i in range(300)]
    image = dict(size=size, negative=set(), not_exhaustive=set(), truths=[truth],
                 detections=[*other, truth | dict(score=0.1)])
    for count, ap in ((300, 0), (299, 1)):
        image['detections'] = [*other[:count], truth | dict(score=0.1)]
        path = annotation_file(tmp_path / 'a.json', [image], **LVIS)
        figures = run(samples([image]), dict(type=METRIC, ann_file=path))
        assert figures['lvis/segm_mAP'] == figures['lvis/boundary_mAP'] == ap
        assert oracle.figures([image], [1, 2], 'segm', federated=True)['segm_mAP'] == ap


def test_more_than_100_detections_of_a_class_count(tmp_path):
    """COCO's first figure takes 100 per class and image: here the 151st finds the object."""
    size = (60, 60)
    rng = np.random.default_rng(0)
    truth = dict(mask=square(size, 10, 10, 40, 40), category=1)
    wrong = [dict(mask=blob(rng, size, 5), category=1, score=1 - i / 1000) for i in range(150)]
    image = dict(size=size, negative=set(), not_exhaustive={1}, truths=[truth],
                 detections=[*wrong, truth | dict(score=0.1)])
    path = annotation_file(tmp_path / 'a.json', [image], **LVIS)
    assert run(samples([image]), dict(type=METRIC, ann_file=path))['lvis/segm_mAP'] == 1


# ---- COCO's classes in a file of LVIS ------------------------------------------------------------

def test_ids_of_coco():
    """As in COCO's own annotation files."""
    assert len(COCO_IDS) == 80
    assert {name: COCO_IDS[name] for name in (
        'person', 'traffic light', 'stop sign', 'backpack', 'wine glass', 'dining table', 'toilet',
        'tv', 'book', 'toothbrush')} == {
        'person': 1, 'traffic light': 10, 'stop sign': 13, 'backpack': 27, 'wine glass': 46,
        'dining table': 67, 'toilet': 70, 'tv': 72, 'book': 84, 'toothbrush': 90}


def test_classes_by_name_and_by_id():
    categories = [dict(id=i, name=name) for name, i in LVIS_NAMES.items()]
    assert category_ids(categories, ['toothbrush', 'person']) == [90, 1]
    assert category_ids(categories, list(COCO_IDS)) == list(COCO_IDS.values())
    own = [dict(id=7, name='tv'), dict(id=1203, name='cat')]
    assert category_ids(own, ['cat', 'tv']) == [1203, 7]


@pytest.mark.parametrize(('categories', 'classes', 'message'), [
    ({'person': 1}, ['person', 'dragon'], "1 of 2 classes .* 'dragon' for one"),
    ({'person': 1, 'aerosol_can': 12}, ['person', 'tv'], "'tv' for one, and its ids are not"),
    ({'person': 1, 'zucchini': 1203}, ['person', 'tv'], "'tv'"),
    ({'person': 2}, ['person', 'tv'], "'tv'")])
def test_a_class_that_is_missing_is_named(categories, classes, message):
    with pytest.raises(ValueError, match=message):
        category_ids([dict(id=i, name=name) for name, i in categories.items()], classes)


def test_ap_star_of_a_model_of_80_classes(tmp_path):
    """Labels are COCO's 80; the file has four of the classes, two under other names.

    What is found of the others counts nowhere, and the last class is told from its neighbors.
    """
    images = lvis_images(0, count=5, per_image=4)
    ids = list(LVIS_NAMES.values())
    for image in images:
        for thing in image['truths'] + image['detections']:
            thing['category'] = ids[thing['category']]  # 3, 72, 90
        for key in ('negative', 'not_exhaustive'):
            image[key] = {ids[c] for c in image[key]}
    path = tmp_path / 'a.json'
    annotation_file(path, images, **LVIS)
    content = json.loads(path.read_text())
    content['categories'] = [dict(id=i, name=name) for name, i in LVIS_NAMES.items()]
    path.write_text(json.dumps(content))
    expected = {kind: oracle.figures(images, ids, kind, federated=True)
                for kind in ('segm', 'boundary')}
    size = images[0]['size']
    images[0]['detections'].append(
        dict(mask=square(size, 0, 0, 9, 9), category=COCO_IDS['dog'], score=0.99))
    label = {i: label for label, i in enumerate(COCO_IDS.values())}
    for _ in range(2):  # a second evaluation, as in training
        figures = run(samples(images, label=label.__getitem__),
                      dict(type=METRIC, ann_file=str(path), classwise=True),
                      classes=tuple(COCO_IDS))
        for kind, table in expected.items():
            for key, value in table.items():
                assert figures[f'lvis/{key}'] == pytest.approx(value, abs=1.5e-3), kind
    assert np.isnan(figures['lvis/boundary_dog_precision'])
    assert figures['lvis/television_set_precision'] == pytest.approx(
        oracle.figures(images, [72], 'segm', federated=True)['segm_mAP'], abs=1.5e-3)


@pytest.mark.parametrize('key', LVIS)
def test_a_file_of_coco_is_refused(tmp_path, key):
    extra = {name: value for name, value in LVIS.items() if name != key}
    path = annotation_file(tmp_path / 'a.json', paper_images(), **extra)
    with pytest.raises(ValueError, match=f'a.json is no file of LVIS: image 1 has no {key}'):
        BoundaryLVISMetric(path)


def test_wrong_settings_are_named(tmp_path):
    path = annotation_file(tmp_path / 'a.json', paper_images(), **LVIS)
    with pytest.raises(ValueError, match='ann_file must be a file of LVIS'):
        BoundaryLVISMetric(None)
    with pytest.raises(KeyError, match="got 'proposal'"):
        BoundaryLVISMetric(path, ['segm', 'proposal'])
