"""Single layers against loops, spconv engine and masked dense engine alike."""
import pytest
import torch

from mmsparse.sparse import (
    ActiveBatchNorm,
    DownConv2d,
    Linear1x1,
    SparseMap,
    SubMConv2d,
    UpConv2d,
)
from mmsparse.sparse.layers import pad_channels, rows_of
from tests.oracles import as_pixels, loop_down, loop_subm, loop_up


def pixels_of(size, share, seed=0, channels=4, batch=2):
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, *size, generator=g)
    mask = torch.rand(batch, *size, generator=g) < share
    mask[0, 0, 0] = True
    return SparseMap.from_mask(image, mask)


ENGINES = dict(spconv=SparseMap.to_spconv, masked_dense=SparseMap.to_masked)
CASES = [((7, 9), 0.3), ((8, 8), 1.0), ((12, 7), 0.1)]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(('size', 'share'), CASES)
def test_subm_conv(engine, size, share):
    pixels, conv = pixels_of(size, share), SubMConv2d(4, 5, level=0)
    rows = rows_of(conv(ENGINES[engine](pixels)))
    expected = loop_subm(as_pixels(pixels.features, pixels.indices), conv.weight)
    for row, index in zip(rows.double(), pixels.indices.tolist(), strict=True):
        torch.testing.assert_close(row, expected[tuple(index)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(('size', 'share'), CASES)
def test_down_and_up_conv(engine, size, share, padding):
    pixels = pixels_of(size, share)
    down, up = DownConv2d(4, 6, 0, padding), UpConv2d(6, 3, 0, padding)
    fine = ENGINES[engine](pixels)
    coarse = down(fine)

    expected = loop_down(as_pixels(pixels.features, pixels.indices), down.weight, size, padding)
    if engine == 'spconv':  # coarse rows come in no particular order
        found = as_pixels(coarse.features, coarse.indices)
    else:
        found = as_pixels(coarse.rows(), coarse.mask[:, 0].nonzero())
    assert found.keys() == expected.keys()
    for index, row in found.items():
        torch.testing.assert_close(row, expected[index], atol=1e-5, rtol=1e-5)

    rows = rows_of(up(coarse, fine))
    expected = loop_up(expected, up.weight, [tuple(i) for i in pixels.indices.tolist()], padding)
    for row, index in zip(rows.double(), pixels.indices.tolist(), strict=True):
        torch.testing.assert_close(row, expected[tuple(index)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('engine', ENGINES)
def test_linear_is_a_matrix_product_per_pixel(engine):
    pixels, linear = pixels_of((6, 5), 0.5), Linear1x1(4, 7)
    rows = rows_of(linear(ENGINES[engine](pixels)))
    torch.testing.assert_close(rows, pixels.features @ linear.weight.T)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('training', [True, False])
def test_batch_norm_counts_active_pixels_only(engine, training):
    pixels, norm = pixels_of((11, 9), 0.2), ActiveBatchNorm(4)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.normal_(norm.running_mean)
    norm.train(training)
    before = norm.running_mean.clone()
    x = pixels.features.double()
    mean = x.mean(0) if training else before.double()
    var = x.var(0, unbiased=False) if training else norm.running_var.double()
    expected = ((x - mean) / (var + 1e-5).sqrt() * norm.weight.double()).clamp(min=0)
    original = pixels.features.clone()
    rows = rows_of(norm(ENGINES[engine](pixels)))
    torch.testing.assert_close(rows.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(pixels.features, original), 'the input must not be changed in place'
    if training:
        torch.testing.assert_close(norm.running_mean.double(), before * 0.9 + x.mean(0) * 0.1)
    else:
        assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize('engine', ENGINES)
def test_batch_norm_of_one_training_row_uses_running_statistics(engine):
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    pixels, norm = SparseMap.from_mask(torch.randn(1, 4, 4, 4), mask), ActiveBatchNorm(4)
    norm.running_mean += 0.5
    rows = rows_of(norm.train()(ENGINES[engine](pixels)))
    expected = ((pixels.features - 0.5) / (1 + 1e-5) ** 0.5).clamp(min=0)
    torch.testing.assert_close(rows, expected)
    assert torch.equal(norm.running_mean, torch.full((4,), 0.5))


def test_initialization_bounds():
    torch.manual_seed(0)
    for layer, fan in [(SubMConv2d(32, 64, 0), 32), (DownConv2d(32, 64, 0, 1), 32),
                       (UpConv2d(64, 32, 0, 1), 32)]:
        bound = (9 * fan) ** -0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize('channels', [3, 8, 13])
def test_channels_filled_with_zeros_change_nothing(channels):
    """What half precision does for tensor cores, here in float32."""
    pixels, conv = pixels_of((9, 11), 0.4, channels=channels), SubMConv2d(channels, 5, level=0)
    x, weight = pad_channels(pixels.to_spconv(), conv.weight)
    assert x.features.shape[1] == weight.shape[3] == -(-channels // 8) * 8
    wide = SubMConv2d(weight.shape[3], 5, level=0)
    wide.weight = torch.nn.Parameter(weight.detach())
    # matrix products with another number of columns may round otherwise
    torch.testing.assert_close(wide(x).features, conv(pixels.to_spconv()).features)
