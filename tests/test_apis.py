"""Models and images from every source that the functions take, and what they say of a wrong one."""
import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import LoadAnnotations

from mmsparse.apis import inference, init_model, read_image
from mmsparse.datasets import CamVidDataset
from mmsparse.engine.loading import load_model
from tests.configs import LOAD, PACK, config
from tests.models.crm.builders import Fake, blobs, with_scores
from tests.models.tiny import refined_cfg

SIZE = (40, 56)
META = dict(classes=('a', 'b', 'c', 'd', 'e'), palette=[[k, 0, 0] for k in range(5)])


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def file(image, tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope='module')
def model():
    return init_model(config(), device='cpu')


@pytest.fixture
def checkpoint(tmp_path):
    """Weights with the classes of a data set that no config names."""
    state = load_model(config(), None, 'cpu').state_dict()
    state['decode_head.classifier.bias'][:] = torch.arange(5)
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=META)), path)
    return path


# ---- Models ----


def test_model_is_ready_to_predict(model):
    assert not model.training
    assert model.cfg.model.type == 'mmsparse.SparseRefineSegmentor'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert next(init_model(config()).parameters()).device.type == device


def test_weights_and_classes_come_from_the_checkpoint(checkpoint):
    loaded = init_model(config(), checkpoint, device='cpu')
    assert loaded.dataset_meta == META
    assert torch.equal(loaded.decode_head.classifier.bias, torch.arange(5.))


def test_it_is_the_model_of_the_config_ready_for_inference(checkpoint, image):
    """Batch norms are folded; what is predicted stays."""
    fused, model = init_model(config(), checkpoint, device='cpu'), load_model(
        config(), checkpoint, 'cpu')
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in x.modules()) for x in (fused, model)]
    assert norms[0] < norms[1] and not any(p.requires_grad for p in fused.parameters())
    found, expected = (inference(x, image).pred_sem_seg.data for x in (fused, model))
    assert (found == expected).float().mean() > 0.999


def test_backend_and_precision(image):
    found = [inference(init_model(config(), device='cpu', **how), image)
             for how in ({}, dict(backend='openvino'), dict(dtype='bfloat16'))]
    assert all(sample.pred_sem_seg.data.shape == found[0].pred_sem_seg.data.shape
               for sample in found)
    with pytest.raises(ValueError, match="backend must be one of .*, got 'onnx'"):
        init_model(config(), device='cpu', backend='onnx')


def test_without_a_checkpoint_classes_come_from_the_test_set(model):
    assert model.dataset_meta['classes'][:2] == ('sky', 'building')
    renamed = config(metainfo=dict(classes=('x', 'y')))
    assert init_model(renamed, device='cpu').dataset_meta['classes'] == ('x', 'y')
    assert init_model(config(dataset=CamVidDataset), device='cpu').dataset_meta == \
        model.dataset_meta
    wrapped = config()
    wrapped.test_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=wrapped.test_dataloader.dataset)
    assert init_model(wrapped, device='cpu').dataset_meta == model.dataset_meta


def test_a_config_file_and_a_config_are_alike(tmp_path, model):
    path = tmp_path / 'config.py'
    config().dump(path)
    for source in (path, str(path)):
        assert init_model(source, device='cpu').state_dict().keys() == model.state_dict().keys()


def test_a_config_that_is_given_stays_as_it_is():
    given = config()
    before = copy.deepcopy(given.to_dict())
    built = init_model(given, device='cpu', cfg_options={'model.low_res_scale': .25})
    assert given.to_dict() == before
    assert built.cfg.model.low_res_scale == built.low_res_scale == .25


def test_a_config_of_an_installed_package():
    built = init_model('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', device='cpu',
                       cfg_options={'model.backbone.depth': 18, 'model.backbone.base_channels': 8,
                                    'model.decode_head.in_channels': 64,
                                    'model.auxiliary_head.in_channels': 32})
    assert built.dataset_meta['classes'][0] == 'road'


@pytest.mark.parametrize('missing', ['nothing.py', 'mmseg::fcn/nothing.py'])
def test_a_missing_config_is_named(missing):
    with pytest.raises(FileNotFoundError, match='nothing.py'):
        init_model(missing)


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        init_model(config(), 'nothing.pth', device='cpu')


# ---- Images ----


def test_one_image_gives_one_sample(model, image, file):
    found = inference(model, image)
    for name in ('pred_sem_seg', 'low_res_sem_seg', 'selected'):
        assert found.get(name).data.shape == (1, *SIZE)
    for source in (file, str(file)):
        same = inference(model, source)
        assert torch.equal(same.pred_sem_seg.data, found.pred_sem_seg.data)
        assert same.img_path == str(file)


def test_a_list_gives_a_list_of_any_sources_and_sizes(model, image, file):
    found = inference(model, [image, file, image[:32, :48]])
    assert [sample.pred_sem_seg.data.shape[1:] for sample in found] == [SIZE, SIZE, (32, 48)]
    assert torch.equal(found[0].pred_sem_seg.data, found[1].pred_sem_seg.data)
    assert inference(model, []) == []


def test_it_is_what_mmseg_finds(model, image, file):
    """Its function takes one kind of source per model, and a pipeline of its own name."""
    from mmseg.apis import inference_model
    init_default_scope('mmseg')  # it takes the scope for granted
    theirs = copy.copy(model)
    theirs.cfg = copy.deepcopy(model.cfg)
    theirs.cfg.test_pipeline = [LOAD, dict(type='LoadAnnotations'), PACK]
    expected = inference_model(theirs, str(file)).pred_sem_seg.data
    assert torch.equal(inference(model, image).pred_sem_seg.data, expected)


@pytest.mark.parametrize('loading', [
    [LOAD, dict(type='LoadAnnotations')],
    [dict(type='mmseg.LoadAnnotations'), dict(type='mmcv.LoadImageFromFile')],
    [dict(type=LoadAnnotations)],  # as in a pure Python config
])
def test_loading_is_left_out_of_any_pipeline(model, image, loading):
    """What else there is stays, such as a change of size."""
    halved = init_model(config(*loading, dict(type='Resize', scale_factor=.5), PACK), device='cpu')
    before = copy.deepcopy(halved.cfg.to_dict())
    sample = inference(halved, image)
    assert sample.img_shape == (20, 28) and sample.pred_sem_seg.data.shape[1:] == SIZE
    assert halved.cfg.to_dict() == before


def test_score_is_kept_on_request(image):
    keep = {'model.test_cfg.keep_score': True}
    sample = inference(init_model(config(), device='cpu', cfg_options=keep), image)
    assert sample.selection_score.data.shape == (1, *SIZE)
    assert sample.selection_score.data.dtype == torch.float32


def test_a_gray_file_is_read_in_color(tmp_path):
    cv2.imwrite(str(tmp_path / 'gray.png'), np.full((4, 5), 7, np.uint8))
    assert (read_image(tmp_path / 'gray.png') == np.full((4, 5, 3), 7)).all()


@pytest.mark.parametrize('wrong, error, message', [
    ('nothing.png', FileNotFoundError, 'nothing.png'),
    ('.', OSError, 'directory'),
    (7, TypeError, 'a path or a uint8 BGR array .* got int'),
    (np.zeros((4, 5, 3)), TypeError, 'must be uint8 .* got float64'),
    (np.zeros((4, 5), np.uint8), ValueError, r'must be \[H, W, 3\], got \[4, 5\]'),
    (np.zeros((3, 4, 5), np.uint8), ValueError, r'got \[3, 4, 5\]'),
    (np.zeros((0, 5, 3), np.uint8), ValueError, r'got \[0, 5, 3\]'),
])
def test_what_is_no_image_is_named(model, wrong, error, message):
    with pytest.raises(error, match=message):
        inference(model, wrong)


@pytest.mark.parametrize('content', [b'', b'no image'])
def test_a_file_that_is_no_image_is_named(model, tmp_path, content):
    path = tmp_path / 'broken.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='broken.jpg is no image'):
        inference(model, path)


def test_a_config_without_a_test_set_is_refused(model, image):
    bare = copy.copy(model)
    bare.cfg = Config(dict(default_scope='mmseg'))
    with pytest.raises(ValueError, match='no test_dataloader.dataset'):
        inference(bare, image)


# ---- a model that looks at the original, too ----


@pytest.mark.parametrize('steps', [[], [dict(type='Resize', scale_factor=.5)]])
def test_a_refined_segmentor_takes_files_and_arrays(image, file, steps):
    """As its own test pipeline does, which reads the file again."""
    refined = init_model(config(LOAD, *steps, PACK, model=refined_cfg(
        class_policy=dict(min_area=1))), device='cpu')
    with_scores(refined, blobs((20, 28)))  # several classes
    refined.refiner = Fake(lambda images, masks: (images[:, 0] > 99).float())
    data = Compose(refined.cfg.test_dataloader.dataset.pipeline)(dict(img_path=str(file)))
    expected, = refined.test_step(pseudo_collate([data]))
    for source in (file, str(file), image):
        found = inference(refined, source)
        for field in ('pred_sem_seg', 'coarse_sem_seg'):
            assert torch.equal(found.get(field).data, expected.get(field).data)
        assert 'ori_img' not in found
        assert found.img_path == (None if source is image else str(file))
    assert expected.pred_sem_seg.data.shape == (1, *SIZE)
    assert not torch.equal(expected.pred_sem_seg.data, expected.coarse_sem_seg.data)


# ---- mmseg's inferencer ----


@pytest.mark.parametrize('name', [
    'sparserefine_fcn-hr16s_1xb2-400_camvid-720x960',
    'sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048'])
def test_stock_inferencer_takes_our_config(root, tmp_path, file, name):
    """A shipped config with weights of its own; the picture it returns is ours."""
    from mmseg.apis import MMSegInferencer
    path = root / 'configs/sparserefine' / f'{name}.py'
    small = {'segmentor_checkpoint': None, 'decode_head.extractor.channels': (4, 8)}
    small = {f'model.{key}': value for key, value in small.items()}
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=load_model(path, None, 'cpu', small).state_dict()), weights)
    model = init_model(path, weights, device='cpu', cfg_options=small)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(small)
    inferencer = MMSegInferencer(model=cfg, weights=str(weights), device='cpu')
    found = inferencer(str(file), return_vis=True, out_dir=str(tmp_path / 'out'))
    expected = inference(model, file).pred_sem_seg.data[0].numpy()
    assert (found['predictions'] == expected).all()
    assert found['visualization'].shape[1] > 1000  # panels
    assert (tmp_path / 'out' / 'vis' / 'image.png').is_file()
