import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.sparse import MaskedMap, SparseMap, Topology
from tests.examples import examples


def random_case(batch, height, width, share, seed, channels=3):
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, height, width, generator=g)
    return image, torch.rand(batch, height, width, generator=g) < share


@examples(40)
@given(batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40),
       share=st.sampled_from([0.0, 0.02, 0.5, 1.0]), seed=st.integers(0, 99))
def test_from_mask_takes_the_pixels_in_raster_order(batch, height, width, share, seed):
    image, mask = random_case(batch, height, width, share, seed)
    pixels = SparseMap.from_mask(image, mask)
    expected = [(b, y, x) for b in range(batch) for y in range(height) for x in range(width)
                if mask[b, y, x]]
    assert pixels.topology.indices.tolist() == [list(e) for e in expected]
    assert pixels.topology.indices.dtype == torch.int32 and pixels.topology.indices.is_contiguous()
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
    assert torch.equal(part.topology.indices, direct.topology.indices)
    assert torch.equal(part.features, direct.features)
    assert part.topology.spatial_shape == (20, 23)
    assert torch.equal(pixels.features[rows], part.features)


def test_a_dense_map_keeps_values_and_gradients():
    image, mask = random_case(2, 9, 8, 0.5, 2)
    image.requires_grad_()
    masked = MaskedMap.of(SparseMap.from_mask(image, mask))
    assert torch.equal(masked.data, image * mask[:, None])
    masked.data.sum().backward()
    assert torch.equal(image.grad, mask[:, None].expand_as(image).float())


@pytest.mark.parametrize(('features', 'message'), [
    (torch.zeros(2), r'floating-point \[N, C\]'),
    (torch.zeros(2, 3, dtype=torch.int64), 'floating-point'),
    (torch.zeros(1, 3), '1 rows of features, but its topology has 2')])
def test_malformed_rows_are_refused(features, message):
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1:3, 2] = True
    with pytest.raises(ValueError, match=message):
        SparseMap(features, Topology(mask))


@pytest.mark.parametrize('mask', [
    torch.zeros(2, 4, 4), torch.zeros(4, 4, dtype=torch.bool),
    torch.zeros(1, 4, 5, dtype=torch.bool)])
def test_from_mask_refuses_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match=r'mask must be bool \[(1, 4, 4|B, H, W)\]'):
        SparseMap.from_mask(torch.zeros(1, 3, 4, 4), mask)
