"""What is a label map, and that every tool that reads one refuses what is not."""
import functools
import importlib
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from mmsparse.engine.calibration import score_curve
from mmsparse.engine.comparison import compare
from mmsparse.labels import FirstLabels, LabelCheck
from mmsparse.registry import METRICS
from tests.examples import examples
from tests.models.tiny import Answers, build_refine, refine_cfg, segmentor_cfg

SIZE = (48, 64)


# ---- the check ----------------------------------------------------------------------------------

def is_label_map(values, size, num_classes, ignore_index):
    """By loops: a list of lists of integers, as many as the picture has pixels."""
    return len(values) == size[0] and all(
        len(row) == size[1] and all(v == ignore_index or 0 <= v < num_classes for v in row)
        for row in values)


@examples(150)
@given(st.data(), st.integers(1, 6), st.sampled_from([255, 0, 3, -1]),
       st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8]))
@pytest.mark.filterwarnings('ignore:labels. holds 0 and 255')
def test_what_a_label_map_is(data, num_classes, ignore_index, dtype):
    size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = data.draw(st.one_of(st.just(size), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    allowed = st.sampled_from([*range(num_classes), max(ignore_index, 0)])
    low = 0 if dtype == torch.uint8 else -2
    value = data.draw(st.sampled_from([allowed, st.integers(low, 8) | st.just(255)]))
    row = st.lists(value, min_size=shape[1], max_size=shape[1])
    values = data.draw(st.lists(row, min_size=shape[0], max_size=shape[0]))
    check = LabelCheck(num_classes, ignore_index)
    label = torch.tensor(values, dtype=dtype)
    if is_label_map(values, size, num_classes, ignore_index):
        assert torch.equal(check(label[None], size, {}), label)
    else:
        with pytest.raises(ValueError, match='^labels: '):
            check(label[None], size, {})


@pytest.mark.parametrize(('values', 'num_classes', 'ignore_index', 'message'), [
    ([[0, 255]], 2, 3, r"holds 255; classes are 0 to 1, .* `\(labels > 127\).astype\('uint8'\)`"),
    ([[0, 255]], 5, 3, 'holds 255; .*pad with 3: seg_pad_val'),
    ([[1, 5]], 5, 255, 'holds 5; classes are 0 to 4, and 255 is ignored; if 0 is no class .* '
                       'reduce_zero_label=True'),
    ([[1, 38, 75, 76, 77, 78, 79]], 21, 255, 'holds 38, 75, 76, 77, 78, ...; classes'),
    ([[-1, 0]], None, 255, 'holds -1; classes are 0, 1, ..., and 255'),
    ([[0, 1, 1]], 5, 255, r'the label map has \[1, 3\] pixels, its picture \[1, 2\]'),
])
def test_errors_say_what_to_do_and_name_the_file(values, num_classes, ignore_index, message):
    check = LabelCheck(num_classes, ignore_index)
    label = torch.tensor([values])
    size = (1, 2) if len(values[0]) == 3 else (1, len(values[0]))
    for meta, name in ((dict(seg_map_path='a.png', img_path='a.jpg'), 'labels a.png: '),
                       (dict(img_path='a.jpg'), 'labels of a.jpg: ')):
        with pytest.raises(ValueError, match=name + '.*' + message):
            check(label, size, meta)


def test_255_is_not_minus_one():
    """To torch it is, in uint8."""
    label = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    assert (label == -1).any()
    with pytest.raises(ValueError, match='holds 255; classes are 0 to 4, and -1 is ignored'):
        LabelCheck(5, -1)(label, (1, 2), {})


@pytest.mark.parametrize('label', [torch.rand(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)])
def test_class_numbers_are_integers(label):
    with pytest.raises(ValueError, match='a.png: class numbers must be integers, got torch'):
        LabelCheck(2, 255)(label, (2, 2), dict(seg_map_path='a.png'))


def test_a_binary_map_of_0_and_255_is_warned_about_once_and_refused_if_there_is_no_other(recwarn):
    check = LabelCheck(2, 255)
    background, suspect, fine = (torch.tensor([[v]]) for v in ([0, 0], [0, 255], [1, 255]))
    check(background, (1, 2), {})
    check.require_object()
    assert not recwarn
    check(suspect, (1, 2), dict(seg_map_path='a.png'))
    check(suspect, (1, 2), dict(seg_map_path='b.png'))
    assert len(recwarn) == 1 and 'labels a.png: holds 0 and 255' in str(recwarn[0].message)
    with pytest.raises(ValueError, match=r'no label is 1, but labels a.png holds .*labels > 127'):
        check.require_object()
    check(fine, (1, 2), {})
    check.require_object()


# ---- everything that reads labels, through mmseg's own loader -----------------------------------

CLASSES = tuple('abcde')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')]


def dataset(folder, label, classes=CLASSES):
    """A dataset of one picture; ``label`` as its file holds it."""
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    for part in ('images', 'labels'):
        (folder / part).mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'images' / 'a.jpg'), picture)
    cv2.imwrite(str(folder / 'labels' / 'a.png'), label)
    # serialize_data: mmengine collects garbage for it, for seconds
    return dict(type=BaseSegDataset, data_root=str(folder), seg_map_suffix='.png',
                serialize_data=False,
                data_prefix=dict(img_path='images', seg_map_path='labels'),
                metainfo=dict(classes=classes, small_classes=classes[:1]), pipeline=PIPELINE)


def loader(data):
    return ConfigDict(batch_size=1, num_workers=0, dataset=data, persistent_workers=False,
                      sampler=dict(type='DefaultSampler', shuffle=False),
                      collate_fn=dict(type='pseudo_collate'))


def stripes(*values, size=SIZE):
    label = np.resize(np.array(values, np.uint8), size[0])
    return np.repeat(label[:, None], size[1], 1)


GOOD = stripes(0, 1, 2, 3, 4, 255)
BAD = dict(
    color=(np.dstack([GOOD] * 3), r'has the shape \[48, 64, 3\]; save class numbers'),
    half=(GOOD[::2, ::2], r'has \[24, 32\] pixels, its picture \[48, 64\]'),
    turned=(GOOD.T.copy(), r'has \[64, 48\] pixels, its picture \[48, 64\]'),
    classes=(stripes(0, 5, 6, 7), 'holds 5, 6, 7; classes are 0 to 4'),
    from_one=(stripes(1, 2, 3, 4, 5), 'reduce_zero_label=True'),
)


@functools.cache
def model():
    return build_refine()


def built(data):
    return BaseSegDataset(**{k: v for k, v in data.items() if k != 'type'})


def train(data):
    model().train()
    check, = model().data_preprocessor._forward_pre_hooks.values()
    check.left = 1
    model().data_preprocessor(pseudo_collate([built(data)[0]]), True)


def calibrate(data):
    score_curve(model().eval(), Runner.build_dataloader(loader(data)))


def compare_two(data):
    compare(dict(a=Answers(255), b=Answers(255)), dict(a=loader(data), b=loader(data)))


def metric(name, **kwargs):
    def measure(data):
        dataset = built(data)
        sample = dataset[0]['data_samples']
        for field in ('pred_sem_seg', 'low_res_sem_seg', 'coarse_sem_seg', 'selected'):
            sample.set_data({field: PixelData(data=torch.zeros(1, *SIZE, dtype=torch.int64))})
        made = METRICS.build(dict(type=f'mmsparse.{name}', **kwargs))
        made.dataset_meta = dataset.metainfo
        made.process({}, [sample.to_dict()])
    return measure


READERS = dict(
    train=train, calibrate=calibrate, compare=compare_two,
    selector=metric('SelectorMetric'), low_res=metric('LowResIoUMetric'),
    size=metric('IoUBySizeMetric'), thin=metric('ThinStructureMetric'),
    boundary=metric('BoundaryAccuracyMetric', classes=5))


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.filterwarnings('ignore:Please pay attention your ground truth')
def test_every_reader_refuses_what_is_no_label_map_and_names_the_file(reader, tmp_path):
    (tmp_path / 'good').mkdir()
    READERS[reader](dataset(tmp_path / 'good', GOOD))
    for kind, (label, message) in BAD.items():
        (tmp_path / kind).mkdir()
        with pytest.raises(ValueError, match=f'{kind}/labels/a.png: .*{message}'):
            READERS[reader](dataset(tmp_path / kind, label))


def test_calibrate_refuses_binary_labels_of_0_and_255(tmp_path):
    data = dataset(tmp_path, stripes(0, 255), classes=('a', 'b'))
    with pytest.warns(UserWarning, match='a.png: holds 0 and 255'), pytest.raises(
            ValueError, match=r'no label is 1, but .*a.png holds 0 and 255'):
        score_curve(build_refine(num_classes=2, alpha=0.5), Runner.build_dataloader(loader(data)))


@pytest.fixture
def calibrate_tool(root, tmp_path, monkeypatch, loading):
    """Runs the tool on a dataset in an empty folder; what it ends with."""
    monkeypatch.syspath_prepend(str(root / 'tools'))
    monkeypatch.chdir(tmp_path)

    def run(data, *arguments):
        for name in ('calibrate', 'command_line'):
            sys.modules.pop(name, None)
        data = data | dict(type='BaseSegDataset')
        Config(dict(default_scope='mmseg', model=refine_cfg(), train_dataloader=loader(data),
                    val_dataloader=loader(data))).dump('c.py')
        torch.save(dict(state_dict=build_refine().state_dict()), 'w.pth')
        monkeypatch.setattr(sys, 'argv', ['calibrate.py', 'c.py', 'w.pth', *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module('calibrate').main()
        assert not list(tmp_path.rglob('calibration.*'))
        return str(end.value)

    yield run
    for name in ('calibrate', 'command_line'):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(('label', 'line'), [
    (stripes(255), 'calibrate.py: no pixel has a label: all are ignored'),
    (GOOD[::2, ::2], r'calibrate.py: labels .*a.png: the label map has \[24, 32\] pixels')])
@pytest.mark.parametrize('goal', ['--density', '--target-recall'])
def test_calibrate_ends_in_one_line_and_writes_nothing(
        calibrate_tool, tmp_path, label, line, goal):
    end = calibrate_tool(dataset(tmp_path, label), goal, '0.5')
    assert re.match(line, end) and '\n' not in end


@pytest.mark.parametrize('cfg', [segmentor_cfg(), refine_cfg()], ids=['stock', 'refined'])
def test_the_train_tool_checks_labels_of_any_segmentor(
        cfg, calibrate_tool, tmp_path, monkeypatch):
    data = dataset(tmp_path, BAD['classes'][0]) | dict(type='BaseSegDataset')
    Config(dict(
        default_scope='mmseg', model=cfg, train_dataloader=loader(data), work_dir='out',
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))).dump('c.py')
    monkeypatch.setattr(sys, 'argv', ['train.py', 'c.py'])
    sys.modules.pop('train', None)
    with pytest.raises(ValueError, match=r'labels .*/labels/a.png: holds 5, 6, 7'):
        importlib.import_module('train').main()
    sys.modules.pop('train', None)


# ---- training -----------------------------------------------------------------------------------

def raw(value, size=(96, 101)):
    """A batch as a loader gives it, with one label that may be wrong."""
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, seg_map_path='a.png'))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
    sample.gt_sem_seg.data[0, 0, 0] = value
    return dict(inputs=[torch.zeros(3, *size, dtype=torch.uint8)], data_samples=[sample])


def test_only_the_first_batches_of_a_training_are_looked_at():
    model = build_refine().train()
    for _ in range(FirstLabels(LabelCheck(5, 255)).left - 1):
        model.data_preprocessor(raw(4), True)
    model.eval().data_preprocessor(raw(4), False)  # does not count
    with pytest.raises(ValueError, match='labels a.png: holds 5'):
        model.train().data_preprocessor(raw(5), True)
    model.data_preprocessor(raw(5), True)


def test_labels_are_compared_with_the_picture_before_padding():
    """A label too small is padded like its picture: afterwards nobody could tell."""
    model = build_refine().train()
    data = raw(0, size=(40, 50))
    model.data_preprocessor(data, True)
    data = raw(0, size=(40, 50))
    data['data_samples'][0].gt_sem_seg = PixelData(data=torch.zeros(1, 40, 49, dtype=torch.int64))
    with pytest.raises(ValueError, match=r'a.png: the label map has \[40, 49\] pixels, its picture '
                                         r'\[40, 50\]'):
        model.data_preprocessor(data, True)
