"""Single layers against loops, on the maps of every backend alike."""
import pytest
import torch

from mmsparse.sparse import (
    ActiveBatchNorm,
    BiasReLU,
    DownConv2d,
    Linear1x1,
    MaskedMap,
    RowMap,
    SparseMap,
    SpconvMap,
    SubMConv2d,
    TrainedRowMap,
    UpConv2d,
)
from mmsparse.sparse.backends import gathered
from mmsparse.sparse.backends.spconv import pad_channels
from tests.oracles import as_pixels, loop_down, loop_subm, loop_up


def pixels_of(size, share, seed=0, channels=4, batch=2):
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, *size, generator=g)
    mask = torch.rand(batch, *size, generator=g) < share
    mask[0, 0, 0] = True
    return SparseMap.from_mask(image, mask)


TRAINED = dict(spconv=SpconvMap.of, dense=MaskedMap.of, trained_rows=TrainedRowMap.of)
ENGINES = TRAINED | dict(rows=lambda pixels: RowMap.of(pixels, pixels.features.dtype))
CASES = [((7, 9), 0.3), ((8, 8), 1.0), ((12, 7), 0.1)]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(('size', 'share'), CASES)
@torch.no_grad()
def test_subm_conv(engine, size, share):
    pixels, conv = pixels_of(size, share), SubMConv2d(4, 5)
    rows = conv(ENGINES[engine](pixels)).rows()
    expected = loop_subm(as_pixels(pixels.features, pixels.topology.indices), conv.weight)
    for row, index in zip(rows.double(), pixels.topology.indices.tolist(), strict=True):
        torch.testing.assert_close(row, expected[tuple(index)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(('size', 'share'), CASES)
@torch.no_grad()
def test_down_and_up_conv(engine, size, share, padding):
    pixels = pixels_of(size, share)
    down, up = DownConv2d(4, 6, padding), UpConv2d(6, 3, padding)
    fine = ENGINES[engine](pixels)
    coarse = down(fine)

    expected = loop_down(as_pixels(pixels.features, pixels.topology.indices), down.weight, size,
                         padding)
    cells = (coarse.tensor.indices if engine == 'spconv' else  # in no particular order
             coarse.topology.indices)
    found = as_pixels(coarse.rows(), cells)
    assert found.keys() == expected.keys()
    for index, row in found.items():
        torch.testing.assert_close(row, expected[index], atol=1e-5, rtol=1e-5)

    rows = up(coarse, fine).rows()
    places = [tuple(i) for i in pixels.topology.indices.tolist()]
    expected = loop_up(expected, up.weight, places, padding)
    for row, index in zip(rows.double(), places, strict=True):
        torch.testing.assert_close(row, expected[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('engine', ENGINES)
@torch.no_grad()
def test_linear_is_a_matrix_product_per_pixel(engine):
    pixels, linear = pixels_of((6, 5), 0.5), Linear1x1(4, 7)
    rows = linear(ENGINES[engine](pixels)).rows()
    torch.testing.assert_close(rows, pixels.features @ linear.weight.T)


@pytest.mark.parametrize(('engine', 'training'), [
    *((engine, False) for engine in ENGINES), *((engine, True) for engine in TRAINED)])
@torch.no_grad()
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
    rows = norm(ENGINES[engine](pixels)).rows()
    torch.testing.assert_close(rows.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(pixels.features, original), 'the input must not be changed in place'
    if training:
        torch.testing.assert_close(norm.running_mean.double(), before * 0.9 + x.mean(0) * 0.1)
    else:
        assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize('engine', TRAINED)
@torch.no_grad()
def test_batch_norm_of_one_training_row_uses_running_statistics(engine):
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    pixels, norm = SparseMap.from_mask(torch.randn(1, 4, 4, 4), mask), ActiveBatchNorm(4)
    norm.running_mean += 0.5
    rows = norm.train()(ENGINES[engine](pixels)).rows()
    expected = ((pixels.features - 0.5) / (1 + 1e-5) ** 0.5).clamp(min=0)
    torch.testing.assert_close(rows, expected)
    assert torch.equal(norm.running_mean, torch.full((4,), 0.5))


@pytest.mark.parametrize('engine', ENGINES)
@torch.no_grad()
def test_what_is_left_of_a_folded_norm(engine):
    pixels, bias = pixels_of((11, 9), 0.2), torch.randn(4)
    original = pixels.features.clone()
    rows = BiasReLU(bias)(ENGINES[engine](pixels)).rows()
    assert torch.equal(rows, (original + bias).clamp(min=0))
    assert torch.equal(pixels.features, original), 'the input must not be changed in place'


@pytest.mark.parametrize('layer', ['subm', 'down', 'up'])
def test_bfloat16_gradients_of_a_convolution(monkeypatch, layer):
    """Against float64 on the same rounded numbers: no more than the rounding of what comes out.

    In many blocks.
    """
    monkeypatch.setattr(gathered, 'BLOCK', 1 << 16)
    monkeypatch.setattr(gathered, 'ROWS', 1)
    pixels = pixels_of((40, 50), 0.4, channels=32)
    weight = torch.randn(32, 3, 3, 32).bfloat16().float()

    def gradients(kind, dtype):
        x = pixels.features.bfloat16().to(dtype).requires_grad_()
        w = weight.double() if dtype == torch.float64 else weight.clone()
        w.requires_grad_()
        fine = kind.of(SparseMap(x, pixels.topology))
        if layer == 'subm':
            y = fine.subm_conv(w)
        elif layer == 'down':
            y = fine.down_conv(w, 1)
        else:
            coarse = fine.down_conv(torch.ones_like(w).detach() / 32, 1)
            coarse = coarse.replace_rows(coarse.rows().bfloat16().to(dtype))
            y = fine.up_conv(coarse, w, 1)
        rows = y.rows()
        g = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
        (rows * g.to(dtype)).sum().backward()
        return x.grad, w.grad

    for found, expected in zip(gradients(TrainedRowMap, torch.bfloat16),
                               gradients(MaskedMap, torch.float64), strict=True):
        assert (found - expected).norm() / expected.norm() < 2 ** -6


def test_initialization_bounds():
    torch.manual_seed(0)
    for layer, fan in [(SubMConv2d(32, 64), 32), (DownConv2d(32, 64, 1), 32),
                       (UpConv2d(64, 32, 1), 32)]:
        bound = (9 * fan) ** -0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize('channels', [3, 8, 13])
@torch.no_grad()
def test_channels_filled_with_zeros_change_nothing(channels):
    """What half precision does for tensor cores, here in float32."""
    pixels, conv = pixels_of((9, 11), 0.4, channels=channels), SubMConv2d(channels, 5)
    x = SpconvMap.of(pixels)
    tensor, weight = pad_channels(x.tensor, conv.weight)
    assert tensor.features.shape[1] == weight.shape[3] == -(-channels // 8) * 8
    wide = SubMConv2d(weight.shape[3], 5)
    wide.weight = torch.nn.Parameter(weight.detach())
    # matrix products with another number of columns may round otherwise
    padded = x.replace_rows(tensor.features)
    torch.testing.assert_close(wide(padded).rows(), conv(x).rows())
