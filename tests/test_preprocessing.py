"""Against mmseg's preprocessor and post-processing themselves, and loops over pixels."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample

from mmsparse.preprocessing import (
    FLIPS,
    batch_metas,
    normalize,
    placements_of,
    plain_samples,
    prepare,
    stack_padded,
    store_maps,
    valid_mask,
)
from tests.examples import examples


@st.composite
def geometries(draw):
    """Metainfo of the images of a batch, and the batch's size."""
    sides, few = st.integers(1, 9), st.integers(0, 3)
    sizes = [(draw(sides), draw(sides)) for _ in range(draw(st.integers(1, 3)))]
    paddings = [[draw(few) for _ in range(4)] for _ in sizes]
    height = max(h + p[2] + p[3] for (h, _), p in zip(sizes, paddings, strict=True))
    width = max(w + p[0] + p[1] for (_, w), p in zip(sizes, paddings, strict=True))
    metas = []
    for (h, w), (left, _, top, _) in zip(sizes, paddings, strict=True):
        meta = {draw(st.sampled_from(['padding_size', 'img_padding_size'])): [
            left, width - w - left, top, height - h - top]}
        meta['ori_shape'] = draw(st.one_of(st.just((h, w)), st.tuples(sides, sides)))
        if draw(st.booleans()):
            meta |= dict(flip=True, flip_direction=draw(st.sampled_from(list(FLIPS))))
        metas.append(meta)
    return metas, (height, width)


def original(image_map, meta):
    """One pixel of the original after the other."""
    left, right, top, bottom = meta.get('img_padding_size') or meta.get('padding_size')
    height, width = image_map.shape
    found = image_map[top:height - bottom, left:width - right]
    direction = meta.get('flip_direction')
    if direction in ('vertical', 'diagonal'):
        found = found[::-1]
    if direction in ('horizontal', 'diagonal'):
        found = found[:, ::-1]
    (h, w), (rows, columns) = found.shape, meta['ori_shape']
    result = np.empty((rows, columns), found.dtype)
    for y in range(rows):
        for x in range(columns):  # the pixel that the center of this one falls into
            result[y, x] = found[(2 * y + 1) * h // (2 * rows), (2 * x + 1) * w // (2 * columns)]
    return result


@examples(150)
@given(geometries(), st.sampled_from([torch.int64, torch.bool, torch.float32]),
       st.integers(0, 99))
def test_maps_go_back_to_the_original(geometry, dtype, seed):
    metas, size = geometry
    inputs = torch.zeros(len(metas), 3, *size)
    maps = torch.randint(0, 2 if dtype == torch.bool else 200, (len(metas), *size),
                         generator=torch.Generator().manual_seed(seed)).to(dtype)
    samples = [SegDataSample(metainfo=meta) for meta in metas]
    placements = placements_of(batch_metas(inputs, samples), inputs)
    store_maps(samples, placements, a=maps, b=maps + maps)
    for sample, image_map, meta in zip(samples, maps, metas, strict=True):
        assert sample.a.data.dtype == dtype
        assert np.array_equal(sample.a.data[0], original(image_map.numpy(), meta))
        assert np.array_equal(sample.b.data[0], original((image_map + image_map).numpy(), meta))


class Scores(BaseSegmentor):
    """Mmseg's post-processing, and nothing else."""

    align_corners = False
    loss = predict = _forward = extract_feat = encode_decode = None


@examples(60)
@given(geometries(), st.integers(0, 99))
def test_classes_lie_where_mmseg_puts_them(geometry, seed):
    """Of images that were padded and flipped, not resized; mmseg flips along one side."""
    metas, size = geometry
    for meta in metas:
        left, right, top, bottom = meta.get('img_padding_size') or meta.get('padding_size')
        meta['ori_shape'] = (size[0] - top - bottom, size[1] - left - right)
        if meta.get('flip_direction') == 'diagonal':
            meta['flip_direction'] = 'vertical'
    logits = torch.randn(len(metas), 4, *size, generator=torch.Generator().manual_seed(seed))
    theirs = Scores().postprocess_result(logits, [SegDataSample(metainfo=m) for m in metas])
    ours = [SegDataSample(metainfo=meta) for meta in metas]
    store_maps(ours, placements_of(metas, logits), found=logits.argmax(1))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.found.data, b.pred_sem_seg.data)


@examples(60)
@given(geometries())
def test_valid_pixels(geometry):
    metas, size = geometry
    inputs = torch.zeros(len(metas), 3, *size)
    expected = torch.zeros(len(metas), *size, dtype=torch.bool)
    for image, meta in zip(expected, metas, strict=True):
        left, right, top, bottom = meta.get('img_padding_size') or meta.get('padding_size')
        for y in range(top, size[0] - bottom):
            for x in range(left, size[1] - right):
                image[y, x] = True
    found = valid_mask(placements_of(metas, inputs), inputs)
    assert found is None if expected.all() else torch.equal(found, expected)


def test_images_as_they_are():
    """All of their batch, neither flipped nor resized; a batch has no size of its own to share."""
    inputs = torch.zeros(2, 3, 5, 7)
    samples = plain_samples(inputs)
    assert [s.metainfo for s in samples] == batch_metas(inputs) == batch_metas(inputs, [])
    maps = torch.arange(70).view(2, 5, 7)
    placements = placements_of(batch_metas(inputs, samples), inputs)
    assert valid_mask(placements, inputs) is None
    store_maps(samples, placements, found=maps)
    assert torch.equal(torch.cat([s.found.data for s in samples]), maps)
    first, second = batch_metas(inputs)
    first['img_shape'] = (1, 1)  # as sliding windows write into the metas
    assert second['img_shape'] == (5, 7)


@pytest.mark.parametrize('meta', [
    dict(flip=True, ori_shape=(5, 7)), dict(flip=True, flip_direction='up', ori_shape=(5, 7)), {}])
def test_what_the_metainfo_lacks_is_named(meta):
    """Once a map has to go back; training needs no more than the padding."""
    inputs = torch.zeros(1, 3, 5, 7)
    placements = placements_of([meta], inputs)
    assert valid_mask(placements, inputs) is None
    with pytest.raises(ValueError, match="meta_keys .* 'ori_shape', .* horizontal, vertical"):
        store_maps([SegDataSample(metainfo=meta)], placements, found=torch.zeros(1, 5, 7))


def test_maps_of_unequal_size_are_stacked():
    found = stack_padded([torch.ones(2, 3), torch.ones(4, 1)], torch.zeros(2, 3, 4, 5), -1)
    assert found.dtype == torch.int64 and found.shape == (2, 4, 5)
    assert (found[0, :2, :3] == 1).all() and (found[1, :, :1] == 1).all()
    assert (found == 1).sum() == 10 and (found == -1).sum() == 30


@pytest.mark.parametrize('cfg', [
    dict(mean=[1.5, 20, 90], std=[3, 5.5, 60], bgr_to_rgb=True),
    dict(mean=[1.5, 20, 90], std=[3, 5.5, 60], rgb_to_bgr=True),
    dict(mean=[1.5, 20, 90], std=[3, 5.5, 60]), dict(bgr_to_rgb=True), dict()])
def test_images_are_prepared_as_by_mmseg(cfg):
    preprocessor = SegDataPreProcessor(**cfg)
    images = torch.randint(256, (2, 3, 6, 7), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    expected = preprocessor(dict(inputs=list(images)))['inputs']
    assert torch.equal(prepare(images, preprocessor), expected)
    turned = images.flip(1) if {*cfg} & {'bgr_to_rgb', 'rgb_to_bgr'} else images
    assert torch.equal(normalize(turned, preprocessor), expected)
