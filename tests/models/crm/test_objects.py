"""Objects of class maps, their crops, and whole models refined object by object."""
import json
from pathlib import Path

import mmcv
import mmdet
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmsparse.engine.config import read_config
from mmsparse.models.crm import RefinedDetector, RefinedSegmentor
from mmsparse.models.crm.objects import (
    LONG_SIDE,
    SIDE_MULTIPLE,
    Job,
    box_of,
    crop_around,
    objects_of,
    refine_crops,
)
from mmsparse.models.crm.sampling import Window
from mmsparse.registry import MODELS
from tests.examples import examples
from tests.models.crm.builders import Fake, blobs, build, sample, with_scores
from tests.models.tiny import segmentor_cfg


def by_flooding(classes, min_area):
    """Objects by sets of pixels: dilate with the disc, flood in eight directions, erode, cut."""
    import cv2
    disc = [(y - 5, x - 5) for y, x in np.argwhere(
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))).tolist()]
    found = []
    h, w = classes.shape
    for label in np.unique(classes).tolist():
        mask = {tuple(p) for p in np.argwhere(classes == label).tolist()}
        if len(mask) <= min_area:
            continue
        thick = {(y - dy, x - dx) for y, x in mask for dy, dx in disc}
        thick = {(y, x) for y, x in thick if 0 <= y < h and 0 <= x < w}
        while thick:
            part, front = set(), [thick.pop()]
            while front:
                y, x = front.pop()
                part.add((y, x))
                for n in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                    if n in thick:
                        thick.discard(n)
                        front.append(n)
            # beyond the frame counts as inside, as in OpenCV
            eroded = {(y, x) for y, x in part if all(
                (y + dy, x + dx) in part or not (0 <= y + dy < h and 0 <= x + dx < w)
                for dy, dx in disc)}
            if len(eroded) > min_area:
                found.append((label, frozenset(eroded & mask)))
    return set(found)


@pytest.mark.parametrize('seed', range(3))
def test_objects_are_those_of_the_protocol(seed):
    g = np.random.default_rng(seed)
    classes = np.zeros((70, 90), np.int64)
    for label in (1, 2, 3, 1, 2):
        y, x, s = *g.integers(0, 60, 2), g.integers(4, 22)
        classes[y:y + s, x:x + s] = label
    found = set()
    for o in objects_of(classes, min_area=80):
        ys, xs = np.nonzero(o.mask)
        assert o.mask.shape == o.box.size
        found.add((o.label, frozenset(zip((ys + o.box.top).tolist(), (xs + o.box.left).tolist(),
                                          strict=True))))
    assert found == by_flooding(classes, 80) and len(found) > 1


def test_two_boxes_far_apart_are_two_objects_and_near_ones_one():
    classes = np.zeros((200, 300), np.int64)
    classes[20:80, 20:80] = 1
    classes[20:80, 84:140] = 1  # 4 pixels of another class between
    classes[20:80, 200:260] = 1
    classes[150:170, 20:40] = 2  # too small
    found = [o for o in objects_of(classes) if o.label]
    assert sorted((o.box, int(o.mask.sum())) for o in found) == [
        (Window(20, 20, 80, 140), 60 * 116), (Window(20, 200, 80, 260), 3600)]


@examples(80)
@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_crops(height, width, data):
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Window(top, left, data.draw(st.integers(top + 1, height)),
                 data.draw(st.integers(left + 1, width)))
    crop = crop_around(box, (height, width), 0.25)
    for start, stop, a, b, limit in (
            (*crop[::2], *box[::2], height), (*crop[1::2], *box[1::2], width)):
        margin = (b - a) * 0.125
        assert 0 <= start <= max(a - margin, 0) and limit >= stop >= min(b + margin, limit)
        assert (stop - start) % SIDE_MULTIPLE == 0 or stop - start == limit


def test_crops_of_equal_size_go_together_and_small_ones_are_enlarged():
    image = torch.randint(0, 256, (3, 600, 800), dtype=torch.uint8)
    crops = [Window(0, 0, 64, 64), Window(100, 50, 164, 114), Window(0, 0, 400, 320),
             Window(300, 400, 364, 464)]
    jobs = [Job(i, crop, torch.full(crop.size, 0.1 * i)) for i, crop in enumerate(crops)]
    fake = Fake()
    found = {job.key: p for job, p in refine_crops(fake, image, iter(jobs))}
    assert sorted(fake.seen) == [(1, 400, 320), (3, LONG_SIDE, LONG_SIDE)]
    for job in jobs:
        torch.testing.assert_close(found[job.key], job.mask)
    many = [Job(i, Window(0, 0, 512, 512), torch.zeros(512, 512)) for i in range(9)]
    fake = Fake()
    assert len(list(refine_crops(fake, image, iter(many)))) == 9
    assert [n for n, *_ in fake.seen] == [4, 4, 1]


def edge_of(values):
    """Where each row of ``[..., W]`` crosses the middle between its ends, in pixels."""
    values = values.double()
    share = (values - values[..., :1]) / (values[..., -1:] - values[..., :1])
    return share.shape[-1] - share.sum(-1)


@pytest.mark.parametrize('edge', [9, 20, 33])
def test_masks_of_enlarged_crops_stay_on_their_edges(edge):
    """To a tenth of a pixel, there and back, whatever side the crop has."""
    image, mask = torch.full((3, 60, 90), 20, dtype=torch.uint8), torch.zeros(60, 90)
    crop = Window(7, 11, 54, 61)
    image[..., crop.left + edge:], mask[:, crop.left + edge:] = 220, 1
    seen = []
    fake = Fake(lambda images, masks: seen.append((images, masks)) or masks)
    (_, found), = refine_crops(fake, image, [Job(0, crop, crop.of(mask).clone())])
    (images, masks), = seen
    scale = LONG_SIDE / max(crop.size)
    assert masks.shape[2] == LONG_SIDE and scale > 4
    for values in (images, masks):
        assert float((edge_of(values) / scale - edge).abs().max()) < 0.1
    assert float((edge_of(found) - edge).abs().max()) < 0.1


def segmentor(policy=None, fake=None, classes=5):
    init_default_scope('mmseg')
    coarse = segmentor_cfg(classes)
    model = MODELS.build(dict(
        type='mmsparse.RefinedSegmentor', segmentor=coarse, class_policy=policy,
        refiner=dict(type='mmsparse.CRMRefiner', neck=dict(
            type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
            backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
            head=dict(type='mmsparse.ImplicitPointHead'),
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[1] * 3))))
    if fake is not None:
        model.refiner = fake
    return model.eval()


@pytest.mark.parametrize('mode', ['component', 'prob'])
def test_a_refiner_that_changes_nothing(mode):
    scores = blobs()
    model = with_scores(segmentor(dict(mode=mode), Fake()), scores)
    out, = model.predict(torch.zeros(1, 3, 120, 160), [sample((120, 160))])
    assert torch.equal(out.pred_sem_seg.data, scores.argmax(1))
    assert torch.equal(out.coarse_sem_seg.data, scores.argmax(1))
    assert model.refiner.seen


def test_the_coarse_map_is_mmsegs_own():
    """Padding, another size, flips and aligned corners, as mmseg post-processes them."""
    scores, size = blobs((72, 80)), (150, 171)
    for meta in ({}, dict(padding_size=[0, 3, 0, 2]), dict(flip=True, flip_direction='horizontal')):
        for aligned in (False, True):
            model = with_scores(segmentor(dict(min_area=10**6), Fake()), scores)
            model.align_corners = model.segmentor.align_corners = aligned
            out, = model.predict(torch.zeros(1, 3, 72, 80), [sample(size, **meta)])
            stock, = model.segmentor.postprocess_result(scores, [sample(size, **meta)])
            assert float((out.pred_sem_seg.data == stock.pred_sem_seg.data).float().mean()) > 0.9995
            assert not model.refiner.seen


def test_a_diagonal_flip_is_both():
    """mmseg's own post-processing refuses it; its RandomFlip makes it."""
    scores = blobs((72, 80))
    maps = []
    for seen, meta in ((scores, {}),
                       (scores.flip(2, 3), dict(flip=True, flip_direction='diagonal'))):
        model = with_scores(segmentor(dict(min_area=10**6), Fake()), seen)
        out, = model.predict(torch.zeros(1, 3, 72, 80), [sample((72, 80), **meta)])
        maps.append(out.coarse_sem_seg.data)
    assert torch.equal(*maps) and maps[0].unique().numel() > 2


def test_components_compete_and_unclaimed_pixels_stay():
    scores = torch.zeros(1, 5, 160, 200)
    scores[:, 0] = 0.5
    scores[:, 1, 20:90, 20:90] = 2
    scores[:, 2, 100:150, 100:180] = 2
    coarse = scores.argmax(1)
    strength = {1: 0.9, 2: 0.8, 0: 0.3}

    def grow(images, masks):  # everything in the crop, as sure as the image says
        return images[:, 0].float() / 100 * (1 - 0.1 * masks)
    image = np.zeros((160, 200, 3), np.uint8)
    image[..., 0] = 100 * strength[2]
    image[:98, :98, 0] = 100 * strength[1]
    model = with_scores(segmentor(None, Fake(grow)), scores)
    out, = model.predict(torch.zeros(1, 3, 160, 200), [sample((160, 200), image)])
    crops = {o.label: crop_around(o.box, (160, 200), 0.25)
             for o in objects_of(coarse[0].numpy())}
    label, confidence = coarse[0].clone(), torch.full((160, 200), 0.5)
    for kind in (0, 1, 2):
        p = torch.from_numpy(image[..., 0].astype(np.float32)) / 100
        p = p * (1 - 0.1 * (coarse[0] == kind))
        inside = torch.zeros(160, 200, dtype=torch.bool)
        crops[kind].of(inside)[:] = True
        higher = inside & (p > confidence)
        label[higher], confidence[higher] = kind, p[higher]
    assert not torch.equal(label, coarse[0])
    # but for ties, and pixels that enlarging a crop blends
    assert float((out.pred_sem_seg.data[0] == label).float().mean()) > 0.98
    # stuff counts less: it no longer reaches the confidence of 0.5
    model = with_scores(segmentor(dict(stuff_classes=(0, 1, 2)), Fake(grow)), scores)
    out, = model.predict(torch.zeros(1, 3, 160, 200), [sample((160, 200), image)])
    assert torch.equal(out.pred_sem_seg.data, coarse)


def test_prob_mode_takes_the_highest_probability():
    scores = blobs(classes=4, seed=3)
    p = scores.softmax(1)[0]
    coarse = p.argmax(0)
    fake = Fake(lambda image, mask: (mask * 1.5).clamp(max=1))
    model = with_scores(segmentor(dict(mode='prob'), fake, classes=4), scores)
    out, = model.predict(torch.zeros(1, 3, 120, 160), [sample((120, 160))])
    expected = p.clone()
    for o in objects_of(coarse.numpy()):
        crop = crop_around(o.box, (120, 160), 0.25)
        part = (slice(None), slice(crop.top, crop.bottom), slice(crop.left, crop.right))
        expected[o.label][part[1:]] = (p[o.label][part[1:]] * 1.5).clamp(max=1)
    winner = expected.max(0).values
    chosen = expected.gather(0, out.pred_sem_seg.data)[0]
    assert float((winner - chosen).max()) < 0.02  # small crops are enlarged and blend
    assert not torch.equal(out.pred_sem_seg.data[0], coarse)


def test_where_the_original_comes_from(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mmcv.imwrite(image, str(tmp_path / 'a.png'))
    from mmsparse.models.crm.wrappers import original_image
    meta = dict(img_path=str(tmp_path / 'a.png'), ori_shape=(40, 50))
    assert np.array_equal(original_image(meta).permute(1, 2, 0).numpy(), image)
    with pytest.raises(ValueError, match='neither img_path nor ori_img'):
        original_image(dict(ori_shape=(40, 50)))
    with pytest.raises(ValueError, match=r'has \(40, 50\) pixels, the sample says \(41, 50\)'):
        original_image(meta | dict(ori_shape=(41, 50)))


@pytest.mark.parametrize(('policy', 'message'), [
    (dict(mode='both'), 'mode of'), (dict(area=3), 'has the keys'), (dict(expand=-1), 'negative'),
    (dict(stuff_classes=(1, 5)), r'stuff_classes must be numbers of .* 5 classes, got \[5\]'),
    (dict(stuff_classes=(-1,)), r'got \[-1\]'), (dict(stuff_scale=-0.1), r'in \[0, 1\], got -0.1')])
def test_bad_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        segmentor(policy)


def test_wrappers_are_not_trained():
    with pytest.raises(NotImplementedError, match='each by its own config'):
        segmentor().loss(None, None)


def test_checkpoints_of_both(tmp_path):
    a = segmentor()
    torch.save(dict(state_dict=a.segmentor.state_dict()), tmp_path / 'base.pth')
    torch.save(dict(state_dict=a.refiner.state_dict()), tmp_path / 'refiner.pth')
    torch.manual_seed(1)
    b = segmentor()
    cfg = dict(segmentor_checkpoint=str(tmp_path / 'base.pth'),
               refiner_checkpoint=str(tmp_path / 'refiner.pth'))
    b = RefinedSegmentor(segmentor=segmentor_cfg(5), refiner=dict(
        type='mmsparse.CRMRefiner', neck=dict(
            type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
        backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
        head=dict(type='mmsparse.ImplicitPointHead'),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[1] * 3)), **cfg)
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    with pytest.raises(ValueError, match='refiner_checkpoint .*base.pth does not fit'):
        RefinedSegmentor(segmentor=segmentor_cfg(5), refiner=dict(
            type='mmsparse.CRMRefiner', neck=dict(
                type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
            backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
            head=dict(type='mmsparse.ImplicitPointHead')),
            refiner_checkpoint=str(tmp_path / 'base.pth'))


# ---- detectors --------------------------------------------------------------------------------

def detector(fake):
    init_default_scope('mmdet')
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs/mask_rcnn'
                          / 'mask-rcnn_r50_fpn_1x_coco.py')
    cfg.model.backbone = dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3),
                              base_channels=8, style='pytorch')
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.model.test_cfg.rcnn.max_per_img = 5
    model = RefinedDetector(detector=cfg.model, refiner=dict(
        type='mmsparse.CRMRefiner', neck=dict(
            type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
        backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
        head=dict(type='mmsparse.ImplicitPointHead')))
    model.refiner = fake
    return model.eval()


def test_instances_keep_boxes_scores_and_labels():
    fake = Fake(lambda image, mask: 1 - mask)
    model = detector(fake)
    masks = torch.zeros(3, 200, 260, dtype=torch.bool)
    masks[0, 20:100, 30:120], masks[1, 60:190, 100:250], masks[2, 5:10, 5:10] = True, True, True
    found = InstanceData(masks=masks, scores=torch.tensor([0.9, 0.8, 0.7]),
                         labels=torch.tensor([1, 2, 3]), bboxes=torch.rand(3, 4))
    data = DetDataSample(metainfo=dict(ori_shape=(200, 260), ori_img=np.zeros((200, 260, 3),
                                                                             np.uint8)))
    data.pred_instances = found.clone()
    model.detector.predict = lambda *_, **__: [data]
    out, = model.predict(None, [data])
    got = out.pred_instances
    assert torch.equal(got.coarse_masks, masks)
    for key in ('scores', 'labels', 'bboxes'):
        assert torch.equal(got[key], found[key])
    for i in range(2):
        box = box_of(masks[i].any(1).numpy(), masks[i].any(0).numpy())
        crop = crop_around(box, (200, 260), 0.25)
        inside = torch.zeros(200, 260, dtype=torch.bool)
        inside[crop.top:crop.bottom, crop.left:crop.right] = True
        # the border pixels of an enlarged crop are blended
        assert float((got.masks[i] == (inside & ~masks[i])).float().mean()) > 0.97
    assert torch.equal(got.masks[2], masks[2])  # too small


def test_a_detector_through_its_own_pipeline():
    """Zero and some detections; the real refiner."""
    torch.manual_seed(0)
    model = detector(build())
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    data = DetDataSample(metainfo=dict(
        ori_shape=(96, 128), img_shape=(96, 128), pad_shape=(96, 128), scale_factor=(1.0, 1.0),
        batch_input_shape=(96, 128), ori_img=image))
    batch = dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[data])
    with torch.no_grad():
        out, = model.test_step(batch)
    found = out.pred_instances
    assert found.masks.shape == found.coarse_masks.shape == (len(found), 96, 128)
    assert found.masks.dtype == torch.bool and len(found) == 5
    model.detector.test_cfg.rcnn.score_thr = model.detector.roi_head.test_cfg.score_thr = 2.0
    with torch.no_grad():
        out, = model.test_step(dict(batch, data_samples=[data]))
    assert len(out.pred_instances) == 0


# ---- through the stock runner -----------------------------------------------------------------

THIN = """
refiner = dict(
    type='mmsparse.CRMRefiner',
    data_preprocessor=dict(type='mmseg.SegDataPreProcessor', mean=[127] * 3, std=[64] * 3),
    backbone=dict(type='mmsparse.CRMResNet', base_channels=4, stem_channels=4),
    neck=dict(type='mmsparse.CRMFusionNeck', in_channels=(4, 16, 64)),
    head=dict(type='mmsparse.ImplicitPointHead'))
"""
SCENES = THIN + """
_base_ = 'mmsparse::sparserefine/fcn_hr16s_1xb2-400_scenes-512x1024.py'
model = dict(
    _delete_=True, type='mmsparse.RefinedSegmentor', segmentor=_base_.model, refiner=refiner)
scenes = dict(size=(96, 192), length=2, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='mmsparse.KeepOriginal'),
    dict(type='Resize', scale_factor=0.5), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs', meta_keys=('ori_shape', 'img_shape', 'ori_img'))])
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=scenes)
test_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']),
                  dict(type='mmsparse.BoundaryAccuracyMetric', classes=11)]
"""
BOXES = THIN + """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'
detector = _base_.model
detector.backbone.init_cfg = None
detector.roi_head.bbox_head.num_classes = detector.roi_head.mask_head.num_classes = 1
detector.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
model = dict(_delete_=True, type='mmsparse.RefinedDetector', detector=detector, refiner=refiner)
test_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(
    _delete_=True, type='CocoDataset', ann_file='boxes.json', data_prefix=dict(img=''),
    test_mode=True, metainfo=dict(classes=('box', )), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=False),
        dict(type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_evaluator = dict(ann_file='boxes.json')
"""


def run(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path('config.py').write_text(config)
    cfg = read_config('config.py')
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'refined_{abs(hash(config))}'
    torch.manual_seed(0)
    return Runner.from_cfg(cfg)


def test_a_segmentor_through_the_runner(tmp_path, monkeypatch):
    """The original from the metainfo; IoU and mBA before and after from one run."""
    found = run(SCENES, monkeypatch, tmp_path).test()
    assert {'mIoU', 'IoU', 'mBA', 'coarse_IoU', 'coarse_mBA', 'skipped'} <= set(found)


def test_a_detector_through_the_runner(tmp_path, monkeypatch):
    images, boxes = [], []
    for i in range(2):
        mmcv.imwrite(np.full((80, 96, 3), 90 * i, np.uint8), str(tmp_path / f'{i}.png'))
        images.append(dict(id=i, file_name=f'{i}.png', width=96, height=80))
        boxes.append(dict(id=i + 1, image_id=i, category_id=1, bbox=[8, 8, 40, 40], area=1600,
                          iscrowd=0, segmentation=[[8, 8, 48, 8, 48, 48, 8, 48]]))
    (tmp_path / 'boxes.json').write_text(json.dumps(
        dict(images=images, annotations=boxes, categories=[dict(id=1, name='box')])))
    found = run(BOXES, monkeypatch, tmp_path).test()
    assert 'coco/segm_mAP' in found
