"""Files of models that refine, in onnxruntime and OpenVINO, against what the models predict."""
import itertools
import subprocess
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample
from torch import nn

from mmsparse.engine.export import NotExportable, export_onnx
from mmsparse.registry import MODELS
from tests.models.tiny import PREPROCESSOR, refine_cfg, refined_cfg, segmentor_cfg

SIZE = (45, 70)
UNPADDED = dict(PREPROCESSOR, size=None)


class Pixels(nn.Module):
    """A backbone that gives the image."""

    def forward(self, x):
        return x,


def refining(num_classes=5, selector=None, extractor=None, ensembler=None, head=None, alpha=1.1,
             learned=False, **settings):
    """SparseRefine whose low-resolution segmentor is certain of dark pixels, and of these alone.

    Its first class has the logit ``-5 x``, with ``x`` the mean color, the others 0.
    """
    segmentor = segmentor_cfg(num_classes, data_preprocessor=UNPADDED)
    segmentor['decode_head'] |= dict(in_channels=3, channels=3, num_convs=0) | (head or {})
    cfg = refine_cfg(num_classes, segmentor=segmentor, **settings)
    cfg['selector'] = dict(type='mmsparse.EntropySelector', alpha=alpha) | (selector or {})
    cfg['decode_head'] |= dict(ensembler=ensembler) if ensembler else {}
    cfg['decode_head']['extractor'] |= dict(channels=(8, 12)) | (extractor or {})
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(cfg)).eval()
    model.segmentor.backbone = Pixels()
    layer = model.segmentor.decode_head.conv_seg
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.weight.data[0] = -5 / 3
    for norm in model.decode_head.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 1.5)
    if learned:
        model.selector = MODELS.build(dict(
            type='mmsparse.LearnableSelector', num_classes=num_classes)).eval()
    return model


def picture_of(share, size=SIZE):
    """Dark but for an upper part of the picture, and for single pixels below."""
    rng = np.random.default_rng(2)
    picture = rng.integers(10, size=(*size, 3), dtype=np.uint8)
    bright = np.arange(size[0])[:, None] < share * size[0]
    bright = bright | ((rng.random(size) < 0.02) & (share > 0))
    picture[bright] += 130
    return picture


@torch.no_grad()
def predicted(model, picture):
    """mmseg's own way from a loaded picture, uint8 BGR, to a sample."""
    sample = SegDataSample(metainfo=dict(ori_shape=picture.shape[:2], img_shape=picture.shape[:2]))
    inputs = [torch.from_numpy(picture.transpose(2, 0, 1).copy())]
    return model.test_step(dict(inputs=inputs, data_samples=[sample]))[0]


def as_input(picture):
    """As the files take it: RGB."""
    return picture[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)


def in_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [node.name for node in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def in_openvino(path):
    openvino = pytest.importorskip('openvino', reason='computes exported files')
    compiled = openvino.Core().compile_model(
        openvino.convert_model(path), 'CPU', dict(INFERENCE_PRECISION_HINT='f32'))
    return lambda *inputs: list(compiled(inputs).values())


RUNTIMES = dict(onnxruntime=in_onnxruntime, openvino=in_openvino)


@pytest.fixture(scope='module')
def refining_file(tmp_path_factory):
    model, path = refining(), tmp_path_factory.mktemp('export') / 'model.onnx'
    agreement = export_onnx(model, path, SIZE, False, dataset_meta=dict(
        classes=tuple('abcde'), palette=[[10 * i, 20, 200] for i in range(5)]))
    assert agreement.difference < 1e-4 and 0 < agreement.density < 1
    return model, path


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_the_whole_of_sparserefine_at_every_density(refining_file, runtime):
    """One file for all of them: from no pixel to every one."""
    model, path = refining_file
    run = RUNTIMES[runtime](path)
    densities = []
    for share in (0, 0.05, 0.4, 1):
        picture = picture_of(share)
        sample = predicted(model, picture)
        logits, selected = run(as_input(picture))
        expected = sample.seg_logits.data.numpy()[None]
        assert selected.dtype == bool
        np.testing.assert_array_equal(selected, sample.selected.data.numpy())
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
        densities.append(float(selected.mean()))
    assert densities[0] == 0 and 0 < densities[1] < 0.2 < densities[2] < 0.8 < densities[3] == 1


def test_standard_operators_alone(refining_file):
    _, path = refining_file
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {''} and not model.functions
    operators = {node.op_type for node in model.graph.node}
    assert {'NonZero', 'CumSum', 'Gather', 'MatMul'} <= operators
    assert not operators & {'Loop', 'If', 'Scan'}


def test_what_follows_differs_where_a_pixel_was_refined(refining_file):
    """The refining part of the file is not idle: it changes what it selects, and nothing else."""
    model, _ = refining_file
    sample = predicted(model, picture_of(0.4))
    low = sample.low_res_sem_seg.data
    changed = sample.pred_sem_seg.data != low
    assert changed.any() and not (changed & ~sample.selected.data).any()


SIGMOID = dict(num_classes=2, alpha=0.5, head=dict(out_channels=1, threshold=0.4))
CASES = dict(
    released=dict(
        upsample='bilinear', features=('rgb', 'p'), extractor=dict(in_channels=8, down_padding=0),
        ensembler=dict(type='mmsparse.EntropyEnsembler'), selector=dict(max_density=0.25)),
    padded_sigmoid=SIGMOID | dict(
        data_preprocessor=dict(PREPROCESSOR, size=None, test_cfg=dict(size_divisor=32)),
        selector=dict(max_points=700)),
    near_boundaries=dict(
        selector=dict(type='mmsparse.BoundarySelector', radius=0.02), low_res_flips=('diagonal',)),
    learned_selector=dict(learned=True))


@pytest.mark.slow
@pytest.mark.parametrize('name, include_argmax', list(itertools.product(CASES, (True, False))))
def test_settings(name, include_argmax, tmp_path):
    """Selectors, budgets, ensemblers, features, padding, one channel."""
    model = refining(**CASES[name])
    path = tmp_path / 'model.onnx'
    export_onnx(model, path, SIZE, include_argmax)
    runs = [build(path) for build in RUNTIMES.values()]
    for share in (0, 0.4, 1):
        picture = picture_of(share)
        sample = predicted(model, picture)
        for run in runs:
            result, selected = run(as_input(picture))
            differs = selected != sample.selected.data.numpy()
            # which of equal scores a budget takes is for every runtime to decide
            assert selected.sum() == sample.selected.data.sum()
            if differs.any():
                assert name in ('released', 'padded_sigmoid')
                continue
            if include_argmax:
                np.testing.assert_array_equal(result, sample.pred_sem_seg.data.numpy())
            else:
                expected = sample.seg_logits.data.numpy()[None]
                np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize('runtime', RUNTIMES)
def test_crm_at_all_its_scales(crm_file, runtime):
    """Against the refiner itself, which goes tile by tile; an object that is too small stays."""
    model, path = crm_file
    run = RUNTIMES[runtime](path)
    picture = np.random.default_rng(3).integers(256, size=(60, 83, 3), dtype=np.uint8)
    large, small = np.zeros((60, 83), np.float32), np.zeros((60, 83), np.float32)
    large[10:40, 20:60], small[10:12, 10:12] = 0.9, 1
    for mask in (large, small, np.zeros_like(large)):
        image = torch.from_numpy(picture.transpose(2, 0, 1)[None])
        expected = model.refine(image, torch.from_numpy(mask)[None]).mask.numpy()
        found, = run(np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32)),
                     mask[None])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (expected == 0).all()


@pytest.fixture(scope='module')
def crm_file(tmp_path_factory):
    torch.manual_seed(0)
    settings = dict(scales=(0.25, 0.5, 1.0), min_long_side=40, min_area=100, pad=4, edit_band=0.03)
    model = MODELS.build(refined_cfg()['refiner'] | dict(test_cfg=settings)).eval()
    for layer in model.head.layers:
        layer.weight.data *= 3
    model.head.layers[-1].bias.data += 1  # near the boundary most is object
    path = tmp_path_factory.mktemp('crm') / 'model.onnx'
    assert export_onnx(model, path, (60, 83), False).difference < 1e-4
    return model, path


REFUSED = dict(
    objects=(lambda: MODELS.build(refined_cfg()), 'a RefinedSegmentor crops the objects'),
    low_resolution_windows=(lambda: MODELS.build(refine_cfg(segmentor=segmentor_cfg(
        test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16))))), 'slide'),
    windows=(lambda: refining(test_cfg=dict(
        mode='slide', crop_size=(32, 40), stride=(13, 30))), 'once for every window'),
    padding_and_density=(lambda: refining(
        data_preprocessor=dict(UNPADDED, test_cfg=dict(size_divisor=32)),
        selector=dict(max_density=0.1)), 'give selector.max_points instead'),
    selected_queries=(lambda: MODELS.build(refined_cfg()['refiner'] | dict(test_cfg=dict(
        selector=dict(type='mmsparse.EntropySelector', alpha=0.1)))), 'answers every pixel'))


@pytest.mark.parametrize('name', REFUSED)
def test_what_has_no_onnx_form_is_refused_with_the_reason(name, tmp_path):
    build, message = REFUSED[name]
    with pytest.raises(NotExportable, match=message):
        export_onnx(build(), tmp_path / 'model.onnx', SIZE, True)
    assert not list(tmp_path.iterdir())


# ---- the program beside the file ----------------------------------------------------------------

# What the machine that runs a file does not have.
WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition('.')[0] in ('torch', 'mmcv', 'mmengine', 'mmseg', 'mmsparse', 'onnx'):
            raise ModuleNotFoundError(f'no {name} here')

sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run_onnx(path, *arguments):
    return subprocess.run(
        [sys.executable, '-c', WITHOUT, path.with_name('run_onnx.py'), path,
         *map(str, arguments)], capture_output=True, text=True)


def test_the_program_beside_the_file(refining_file, tmp_path):
    model, path = refining_file
    lines = path.with_name('run_onnx.py').read_text().splitlines()
    assert len(lines) < 150
    picture, out = picture_of(0.4), tmp_path / 'out'
    (tmp_path / 'in/deep').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'in/deep/a.png'), picture)
    (tmp_path / 'in/broken.jpg').write_bytes(b'no picture')
    cv2.imwrite(str(tmp_path / 'in/large.png'), picture_of(0.4, (90, 140)))
    result = run_onnx(path, tmp_path / 'in', '--out', out, '--repeat', 1)
    assert result.returncode == 1
    assert 'broken.jpg is no picture' in result.stderr
    assert 'large.png has 90x140 pixels, the file takes 45x70' in result.stderr
    sample = predicted(model, picture)
    assert f'refined {float(sample.selected.data.float().mean()):.1%} of the' in result.stdout
    assert ' ms' in result.stdout
    classes = cv2.imread(str(out / 'deep/a.png'), cv2.IMREAD_UNCHANGED)
    expected = sample.pred_sem_seg.data[0].numpy()
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 1
    np.testing.assert_array_equal(classes, expected)
    overlay = cv2.imread(str(out / 'deep/a_overlay.jpg')).astype(int)
    colors = np.array([[200, 20, 10 * i] for i in range(5)])  # BGR of the palette
    assert np.abs(overlay - (picture + colors[expected]) / 2).mean() < 4

    result = run_onnx(path, tmp_path / 'in/large.png', '--out', out, '--resize')
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(out / 'large.png'), cv2.IMREAD_UNCHANGED).shape == (90, 140)
    refused = run_onnx(path, tmp_path / 'in', '--out', tmp_path / 'in')
    assert refused.returncode == 1 and 'would write over pictures' in refused.stderr
    assert run_onnx(path, tmp_path / 'nothing', '--out', out).returncode == 1


@pytest.mark.slow
def test_the_program_refines_masks(crm_file, tmp_path):
    model, path = crm_file
    picture = np.random.default_rng(3).integers(256, size=(60, 83, 3), dtype=np.uint8)
    mask = np.zeros((60, 83), np.uint8)
    mask[10:40, 20:60] = 255
    for folder, image in (('masks', mask), ('in', picture)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / 'a.png'), image)
    refused = run_onnx(path, tmp_path / 'in')
    assert refused.returncode == 1 and '--masks are for a file' in refused.stderr
    result = run_onnx(path, tmp_path / 'in', '--masks', tmp_path / 'masks', '--out', tmp_path)
    assert result.returncode == 0, result.stderr
    refined = model.refine(torch.from_numpy(picture.transpose(2, 0, 1)[None]),
                           torch.from_numpy(mask / np.float32(255))[None]).mask[0] > 0.5
    found = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert 0 < found.mean() < 1
    np.testing.assert_array_equal(found, refined.numpy())
