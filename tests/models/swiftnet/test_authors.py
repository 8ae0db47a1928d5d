"""SwiftNet gives the authors' numbers: every released file in the config named for it."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmsparse.datasets import LabelBoundaryWeight, RandomSquareCropAndScale
from mmsparse.datasets.transforms.swiftnet import boundary_distance
from mmsparse.models.swiftnet import SwiftNetHead
from tests import authors
from tests.models.swiftnet.converted import CONFIGS, config, convert, with_statistics


def build(root, name, state=None):
    cfg = Config.fromfile(config(root, name))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    if state is not None:
        model.load_state_dict(state, strict=True)
    return authors.widened(model)


@pytest.fixture(scope='module', params=CONFIGS)
def converted(request, root, tmp_path_factory):
    """A file, and the model of its config with the file's weights."""
    file, name = request.param, CONFIGS[request.param]
    state = convert(root, tmp_path_factory.mktemp(file),
                    with_statistics(authors.state(f'swiftnet{file}')), name)
    return file, build(root, name, state)


@pytest.mark.parametrize('parity', ['even', 'odd'])
@torch.no_grad()
def test_a_converted_file_computes_what_the_authors_code_does(converted, parity):
    """From the picture to the labels, with the data preprocessor of the config, in float64."""
    file, model = converted
    golden = authors.golden(f'swiftnet{file}')
    labels = golden[f'{parity}_label']
    picture = authors.picture('picture', *labels.shape)
    bgr = torch.from_numpy(picture[::-1].copy())
    meta = dict(ori_shape=labels.shape, img_shape=labels.shape)
    data = model.data_preprocessor(
        dict(inputs=[bgr], data_samples=[SegDataSample(metainfo=dict(meta))]))
    maps = model.extract_feat(data['inputs'])
    logits4 = model.decode_head(maps)
    logits = model.decode_head.predict_by_feat(logits4, [meta])
    sample, = model.postprocess_result(logits, data['data_samples'])
    # 1e-7 where the stored arrays were rounded, and for 2019, whose statistics, given from 0 to 1
    # there, are rounded to float32 from 0 to 255 here
    for found, name, tolerance in (
            (maps[-1][0, ::16, ::2, ::2], 'features', 1e-7),
            (logits4[0, :, ::2, ::2], 'logits4', 1e-7),
            (logits[0, :, 3::16, 5::16], 'logits', 1e-7 if '2019' in file else 1e-12)):
        expected = torch.from_numpy(golden[f'{parity}_{name}']).double()
        assert found.dtype == torch.float64
        assert (found - expected).abs().max() <= tolerance * expected.abs().max(), name
    assert golden[f'{parity}_label_margin_min'] > 1e-7
    assert np.array_equal(sample.pred_sem_seg.data[0], labels)


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize('case', range(5))
def test_the_crop_is_theirs(monkeypatch, case):
    golden = authors.golden('swiftnet_crop_and_scale')
    side, left, top = golden[f'case{case}_side_left_top'].tolist()
    limits = golden[f'case{case}_draw_limits_left_top'].tolist()
    # The last case's row was set beyond the limit, where their crop is black: only limits are told.
    draws = iter((left, top) if max(left - limits[0], top - limits[1]) < 0 else (0, 0))
    seen = []
    monkeypatch.setattr(np.random, 'uniform', lambda low, high: side / 64)
    monkeypatch.setattr(np.random, 'randint', lambda limit: seen.append(limit) or next(draws))
    found = RandomSquareCropAndScale(64, pad_val=(72, 82, 73))(dict(
        img=authors.picture('crop.picture', 96, 128).transpose(1, 2, 0)[..., ::-1].copy(),
        gt_seg_map=golden['labels'], seg_fields=['gt_seg_map']))
    assert seen == limits
    if case < 4:
        assert np.array_equal(found['img'][..., ::-1].transpose(2, 0, 1),
                              golden[f'case{case}_image'])
        assert np.array_equal(found['gt_seg_map'], golden[f'case{case}_labels'])


BINS = dict(three=((16, 64, 128), (8, 4, 2, 1)), four=((4, 16, 64, 128), (8, 6, 4, 2, 1)))


def test_weights_by_the_distance_to_a_boundary_are_theirs():
    golden = authors.golden('swiftnet_boundary_weights_and_losses')
    maps = {name: golden[f'{name}_labels'] for name in 'ab'}
    maps['one_class'] = np.zeros((40, 50), np.uint8)
    for name, labels in maps.items():
        for count, (bins, alphas) in BINS.items():
            if (key := f'{name}_weights_{count}') in golden:
                found = LabelBoundaryWeight(bins, alphas)(dict(gt_seg_map=labels))
                assert np.array_equal(found['gt_weight_map'], golden[key]), key
        if f'{name}_distance' in golden:
            found = np.where(labels == 255, np.float32(-1), boundary_distance(labels))
            assert np.array_equal(found[::4, ::4], golden[f'{name}_distance'])


@pytest.mark.parametrize(('name', 'loss'), [
    *((f'loss_gamma_{gamma}', dict(type='mmsparse.BoundaryAwareLoss', gamma=gamma))
      for gamma in (0.0, 0.5, 2.0)),
    ('cross_entropy', dict(type='CrossEntropyLoss', avg_non_ignore=True))])
def test_losses_of_the_head_are_theirs(name, loss):
    golden = authors.golden('swiftnet_boundary_weights_and_losses')
    logits = 3 * torch.from_numpy(authors.noise('boundary_loss.logits', (2, 11, 30, 40)))
    logits.requires_grad_()
    samples = []
    for labels, weights in zip(golden['loss_labels'], golden['loss_weights'], strict=True):
        samples.append(SegDataSample(gt_sem_seg=PixelData(
            data=torch.from_numpy(labels)[None].long())))
        if name != 'cross_entropy':
            samples[-1].gt_weight_map = PixelData(data=torch.from_numpy(weights)[None].double())
    head = SwiftNetHead(in_channels=8, channels=8, num_classes=11, loss_decode=loss)
    found = head.loss_by_feat(logits, samples)
    del found['acc_seg']
    found, = found.values()
    assert float(found.detach()) == pytest.approx(float(golden[name]), rel=1e-9)
    found.backward()
    expected = torch.from_numpy(golden[f'{name}_gradient'])
    error = (logits.grad[:, :, ::5, ::5] - expected).abs().max()
    assert error <= 1e-9 * expected.abs().max()
