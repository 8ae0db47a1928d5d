import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsparse.sparse import SparseMap, maps


def random_case(batch, height, width, share, seed, channels=3):
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, height, width, generator=g)
    return image, torch.rand(batch, height, width, generator=g) < share


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40),
       share=st.sampled_from([0.0, 0.02, 0.5, 1.0]), seed=st.integers(0, 99))
def test_from_mask_takes_the_pixels_in_raster_order(batch, height, width, share, seed):
    image, mask = random_case(batch, height, width, share, seed)
    pixels = SparseMap.from_mask(image, mask)
    expected = [(b, y, x) for b in range(batch) for y in range(height) for x in range(width)
                if mask[b, y, x]]
    assert pixels.indices.tolist() == [list(e) for e in expected]
    assert pixels.indices.dtype == torch.int32 and pixels.indices.is_contiguous()
    for row, (b, y, x) in zip(pixels.features, expected, strict=True):
        assert torch.equal(row, image[b, :, y, x])


def test_read_and_write_are_inverse():
    image, mask = random_case(2, 21, 17, 0.3, 0)
    pixels = SparseMap.from_mask(image, mask)
    written = pixels.write(torch.zeros_like(image), pixels.features)
    assert torch.equal(written, image * mask[:, None])
    assert torch.equal(pixels.read(image), pixels.features)
    labels = torch.arange(mask.numel()).view(mask.shape)
    assert torch.equal(pixels.read(labels), labels[mask])


def test_crop_is_the_crop_of_the_mask():
    image, mask = random_case(2, 40, 30, 0.4, 1)
    pixels = SparseMap.from_mask(image, mask)
    part, rows = pixels.crop(5, 7, 25, 30)
    direct = SparseMap.from_mask(image[:, :, 5:25, 7:30], mask[:, 5:25, 7:30])
    assert torch.equal(part.indices, direct.indices)
    assert torch.equal(part.features, direct.features)
    assert part.spatial_shape == (20, 23)
    assert torch.equal(pixels.features[rows], part.features)


def test_to_masked_keeps_values_and_gradients():
    image, mask = random_case(2, 9, 8, 0.5, 2)
    image.requires_grad_()
    masked = SparseMap.from_mask(image, mask).to_masked()
    assert torch.equal(masked.data, image * mask[:, None])
    masked.data.sum().backward()
    assert torch.equal(image.grad, mask[:, None].expand_as(image).float())


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(features=torch.zeros(2, 3), indices=torch.zeros(2, 3, dtype=torch.int64)), 'int32'),
    (dict(features=torch.zeros(2), indices=torch.zeros(2, 3, dtype=torch.int32)), r'\[N, C\]'),
    (dict(features=torch.zeros(2, 3, dtype=torch.int64),
          indices=torch.zeros(2, 3, dtype=torch.int32)), 'floating-point'),
    (dict(features=torch.zeros(1, 3), indices=torch.zeros(2, 3, dtype=torch.int32)),
     '1 rows of features but 2'),
    (dict(features=torch.zeros(2, 3), indices=torch.ones(2, 3).nonzero()[:2].int()), 'int32'),
    (dict(features=torch.zeros(4, 3),
          indices=torch.ones(1, 2, 2).bool().nonzero().t().int().contiguous().t()), 'contiguous'),
    (dict(features=torch.zeros(1, 3), indices=torch.zeros(1, 3, dtype=torch.int32),
          batch_size=0), 'batch_size'),
])
def test_malformed_rows_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SparseMap(**dict(spatial_shape=(4, 4), batch_size=1) | kwargs)


@pytest.mark.parametrize(('rows', 'message'), [
    ([[0, 0, 4]], 'outside'), ([[0, -1, 0]], 'outside'), ([[1, 0, 0]], 'outside'),
    ([[0, 1, 1], [0, 1, 1]], 'repeats'), ([[0, 1, 1], [0, 0, 2]], 'raster order'),
])
def test_debug_check_refuses_bad_rows(rows, message):
    assert maps.DEBUG, 'tests run with MMSPARSE_DEBUG=1'
    indices = torch.tensor(rows, dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        SparseMap(torch.zeros(len(rows), 1), indices, (4, 4), 1)


@pytest.mark.parametrize('mask', [
    torch.zeros(2, 4, 4), torch.zeros(4, 4, dtype=torch.bool),
    torch.zeros(1, 4, 5, dtype=torch.bool)])
def test_from_mask_refuses_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match=r'mask must be bool \[1, 4, 4\]'):
        SparseMap.from_mask(torch.zeros(1, 3, 4, 4), mask)
