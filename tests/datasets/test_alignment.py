"""A label edge stays on its image edge, to a tenth of a pixel, through everything that resizes."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from mmsparse.datasets import KeepLowRes, LoadLowResLogits, RandomSquareCropAndScale, RenderScene
from mmsparse.engine.calibration import score_curve
from mmsparse.preprocessing import placements_of, store_maps
from mmsparse.sparse import UpsampledLogits
from tests import authors

DARK, BRIGHT = 64, 192  # so that no overshoot of bicubic resizing is cut off


def edge_at(column, size):
    """Left of a column dark and class 0, right of it bright and class 1."""
    label = np.zeros(size, np.uint8)
    label[:, column:] = 1
    return np.where(label[..., None] == 1, BRIGHT, DARK).astype(np.uint8).repeat(3, 2), label


def place(image):
    """Where the edge of an image ``[W]`` is, in pixels from the left; blurring does not move it."""
    return ((BRIGHT - image.astype(np.float64)) / (BRIGHT - DARK)).sum()


def shift(pairs):
    """How far label edges are right of image edges on average: rounding to pixels cancels out."""
    return np.mean([(label == 0).sum() - place(image) for image, label in pairs])


def cropped(side, columns):
    for column in columns:
        image, label = edge_at(column, (side, side))
        found = RandomSquareCropAndScale(64, (side / 64, side / 64))(
            dict(img=image, gt_seg_map=label, seg_fields=['gt_seg_map']))
        yield found['img'][32, :, 0], found['gt_seg_map'][32]


@pytest.mark.parametrize('side', [33, 41, 58, 64, 75, 90, 117, 127])
def test_square_crops(side):
    assert abs(shift(cropped(side, range(side // 4, 3 * side // 4)))) < 0.1


def test_square_crops_together():
    """Where the sides' ratio is 2 / 3, 4 / 3, …, some pixels' centers lie between two pixels."""
    shifts = [shift(cropped(side, range(side // 4, 3 * side // 4))) for side in range(32, 128)]
    assert abs(np.mean(shifts)) < 0.02 and np.abs(shifts).max() < 0.26


@pytest.mark.parametrize('width', [50, 66, 80, 100, 123, 160])
def test_the_low_resolution_that_a_pixel_belongs_to(width):
    def pairs():
        for column in range(40, 120):
            image, label = edge_at(column, (16, 160))
            found = KeepLowRes(scale=(width, 8))(dict(img=image))
            low = found['low_res_img'][0].flatten().numpy()
            index = -1 - found['low_res_index'][8].astype(int)
            yield low[index], label[8]

    assert abs(shift(pairs())) < 0.1


@pytest.mark.parametrize('width', [50, 66, 80, 100, 123, 160])
def test_logits_from_files_are_where_the_model_has_them(tmp_path, width):
    scores = torch.arange(3 * width).float().view(1, 1, 3, width)
    np.save(tmp_path / 'one.npy', scores[0].numpy())
    found = LoadLowResLogits(logits_root=str(tmp_path))(
        dict(img_path='one.png', img=np.zeros((7, 160, 3), np.uint8)))
    ours = UpsampledLogits(scores, (7, 160), mode='nearest').full()[0, 0]
    assert np.array_equal(-1 - found['low_res_index'], ours)


@pytest.mark.parametrize('width', [50, 66, 80, 100, 123, 160])
def test_low_resolution_results_at_full_size(width):
    """What ``upsample='nearest'`` makes of a small picture, and what becomes of a result."""
    def pairs():
        for column in range(40, 120):
            image, label = edge_at(column, (1, 160))
            image = torch.from_numpy(image[None, ..., 0]).float()[None]
            low = F.interpolate(image, size=(1, width), mode='bilinear', align_corners=False)
            yield UpsampledLogits(low, (1, 160), mode='nearest').full().flatten().numpy(), label[0]

    assert abs(shift(pairs())) < 0.1


@pytest.mark.parametrize('width', [50, 66, 80, 100, 123])
def test_maps_of_resized_images(width):
    """Class maps of an image that the network saw smaller, stored at its own size."""
    def pairs():
        for column in range(10, width - 10):
            image, label = edge_at(column, (1, width))
            meta = dict(ori_shape=(1, 160))
            sample = SegDataSample(metainfo=meta)
            store_maps([sample], placements_of([meta], torch.zeros(1, 3, 1, width)),
                       found=torch.from_numpy(label)[None].long())
            wide = F.interpolate(torch.from_numpy(image[None, ..., 0]).float()[None],
                                 size=(1, 160), mode='bilinear', align_corners=False)
            yield wide.flatten().numpy(), sample.found.data[0, 0].numpy()

    assert abs(shift(pairs())) < 0.1


@pytest.mark.parametrize(('low', 'full'), [(512, 1024), (640, 1280), (640, 1024), (7, 16)])
def test_stored_logits_are_enlarged_as_the_authors_do(tmp_path, low, full):
    """By OpenCV's nearest neighbor: half a pixel off where ``low`` does not divide ``full``."""
    np.save(tmp_path / 'one.npy', np.zeros((2, low, 3), np.float16))
    found = LoadLowResLogits(logits_root=str(tmp_path), aligned=False)(
        dict(img_path='one.png', img=np.zeros((full, 6, 3), np.uint8)))
    rows = (-1 - found['low_res_index'].astype(int)) // 3
    golden = authors.golden('sparserefine_data_details')[f'nearest_rows_{low}_to_{full}']
    assert np.array_equal(rows, np.broadcast_to(golden[:, None], rows.shape))


def test_ground_truth_of_another_size_in_calibration():
    """A low-resolution class by the pixel's center is right: no pixel counts as wrong."""
    labels = [edge_at(column, (16, 160))[1] for column in range(40, 120)]
    batches = [dict(inputs=torch.zeros(1, 3, 10, 100), data_samples=[SimpleNamespace(
        metainfo=dict(ori_shape=label.shape, img_shape=(10, 100)),
        gt_sem_seg=SimpleNamespace(data=torch.from_numpy(label)[None].long()))])
        for label in labels]
    classes = iter([(1.6 * (torch.arange(100) + 0.5) >= column).long().expand(1, 10, 100)
                    for column in range(40, 120)])
    model = SimpleNamespace(
        num_classes=2, ignore_index=255, data_preprocessor=lambda batch, training: batch,
        low_logits=lambda inputs, samples: SimpleNamespace(classes=lambda: next(classes)),
        valid=lambda *args: None,
        selector=SimpleNamespace(highest_score=1.0, score=lambda x, low: torch.zeros(1, 10, 100)))
    curve = score_curve(model, batches)
    assert curve.wrong.sum() == 0 and curve.right.sum() == 80 * 1000


@pytest.mark.parametrize('axis', [0, 1])
def test_scenes(axis):
    """Picture and label come from one map: colors change where classes do."""
    found = RenderScene()(dict(scene=dict(index=0, size=(256, 512), seed=0), label_map=None,
                               reduce_zero_label=False, seg_fields=[]))
    image, label = (np.moveaxis(found[key], axis, 0) for key in ('img', 'gt_seg_map'))
    steps = np.abs(np.diff(image.astype(np.float64), axis=0)).sum(-1)  # between neighbors
    rows, columns = np.nonzero(np.diff(label.astype(int), axis=0))
    inside = (rows >= 3) & (rows < len(steps) - 3)
    offsets = np.arange(-3, 4)
    profile = steps[rows[inside] + offsets[:, None], columns[inside]].mean(1)
    profile -= np.median(steps)
    assert profile.argmax() == 3
    assert abs((offsets * profile).sum() / profile.sum()) < 0.1
