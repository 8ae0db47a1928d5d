"""Convolutions for CPU inference: tables against loops, results against loops and dense maps."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsparse.sparse import (
    ActiveBatchNorm,
    DownConv2d,
    Linear1x1,
    SparseMap,
    SubMConv2d,
    UpConv2d,
    gathered,
)
from mmsparse.sparse.layers import concat
from mmsparse.sparse.sites import RowMap, Sites
from mmsparse.sparse.winograd import squares
from tests.oracles import as_pixels, boundary_mask, loop_down, loop_subm, loop_up


def case(batch, height, width, share, channels, seed=0, dtype=torch.float64):
    """Rows of random pixels, and their numbers."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, height, width, generator=g) < share
    image = torch.randn(batch, channels, height, width, generator=g, dtype=dtype)
    pixels = SparseMap.from_mask(image, mask)
    return pixels, pixels.to_rows()


def tiled(x, weight, least=1):
    """A submanifold convolution by Winograd on tiles with so many pixels, gathers elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathered, 'worth_a_tile', lambda *_: least)
        return gathered.subm_conv(x, weight)


def assert_rows(found, expected, indices, tolerance=1e-9):
    """Rows against ``{(b, y, x): vector}``; the spare row is zero."""
    assert not found.rows[-1].any()
    for row, index in zip(found.features, indices.tolist(), strict=True):
        torch.testing.assert_close(row.double(), expected[tuple(index)], atol=tolerance,
                                   rtol=tolerance)


sizes = dict(batch=st.integers(1, 2), height=st.integers(3, 14), width=st.integers(3, 14),
             share=st.sampled_from([0.05, 0.4, 1.0]), seed=st.integers(0, 99))


@settings(max_examples=25, deadline=None)
@given(**sizes)
def test_every_way_of_a_submanifold_convolution_equals_loops(batch, height, width, share, seed):
    """By tiles alone, by tiles and gathers, by gathers alone."""
    pixels, x = case(batch, height, width, share, 3, seed)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = loop_subm(as_pixels(pixels.features, pixels.indices), weight)
    for least in (1, 6, 17):
        assert_rows(tiled(x, weight, least), expected, pixels.indices)


@pytest.mark.parametrize('least', [1, 8, 17])
@pytest.mark.parametrize('size', [(40, 50), (97, 130)])
@torch.no_grad()
def test_norm_and_sum_within_the_convolution(monkeypatch, least, size):
    """A folded norm, a ReLU and an addend give what the layers give one after the other."""
    monkeypatch.setattr(gathered, 'worth_a_tile', lambda *_: least)
    pixels, x = case(2, *size, 0.5, 6)
    conv, norm = SubMConv2d(6, 7, level=0).double(), ActiveBatchNorm(7).double().eval()
    for value in (norm.weight.data, norm.bias.data, norm.running_mean):
        value.normal_()
    norm.running_var.uniform_(0.5, 2)
    plus = x.replace_rows(torch.nn.functional.pad(torch.randn(len(pixels), 7), (0, 0, 0, 1))
                          .double())
    plain = norm(conv(x))
    torch.testing.assert_close(conv(x, norm=norm).rows, plain.rows)
    torch.testing.assert_close(conv(x, plus=plus).rows, conv(x).rows + plus.rows)
    dense = conv(pixels.to_masked(), norm=norm)  # the same arguments on another kind of map
    torch.testing.assert_close(dense.rows(), plain.features)


@settings(max_examples=25, deadline=None)
@given(padding=st.integers(0, 1), **sizes)
@torch.no_grad()
def test_strided_convolution_and_its_inverse_equal_loops(padding, batch, height, width, share,
                                                         seed):
    pixels, x = case(batch, height, width, share, 3, seed)
    down, up = DownConv2d(3, 4, 0, padding).double(), UpConv2d(4, 2, 0, padding).double()
    if not down.has_output(x):
        return
    coarse = down(x)
    expected = loop_down(as_pixels(pixels.features, pixels.indices), down.weight, (height, width),
                         padding)
    cells = coarse.sites.mask.nonzero()
    assert {tuple(c) for c in cells.tolist()} == set(expected)
    assert_rows(coarse, expected, cells)
    fine = [tuple(i) for i in pixels.indices.tolist()]
    expected = loop_up(expected, up.weight, fine, padding)
    assert_rows(up(coarse, x), expected, pixels.indices)
    joined = up(coarse, x, join=True)
    assert torch.equal(joined.features[:, :3], pixels.features)
    assert_rows(joined.replace_rows(joined.rows[:, 3:]), expected, pixels.indices)


@pytest.mark.parametrize('channels', [4, 96])
@pytest.mark.parametrize('kind', ['boundary', 'full', 'one pixel', 'one image empty'])
def test_winograd_at_size_in_float32(kind, channels):
    """Several blocks, two threads, tiles over the border: against the gathered product."""
    mask = boundary_mask(2, 97, 130)
    if kind == 'full':
        mask = torch.ones_like(mask)
    elif kind == 'one pixel':
        mask = torch.zeros_like(mask)
        mask[1, 96, 129] = True
    elif kind == 'one image empty':
        mask[0] = False
    x = SparseMap.from_mask(torch.randn(2, channels, 97, 130), mask).to_rows()
    weight = torch.randn(channels, 3, 3, channels)
    double = x.replace_rows(x.rows.double())
    expected = tiled(double, weight.double(), 17).rows
    for least in (1, 9):
        found = tiled(x, weight, least).rows
        assert (found - expected).norm() / expected.norm() < 1e-5


def test_winograd_matrices_are_exact_on_one_dimension():
    """F(4, 3) of the six points 0, 1, -1, 2, -2, infinity equals the plain sums."""
    to_input, to_weight, to_output = squares(torch.float64)
    assert [m.shape for m in (to_input, to_weight, to_output)] == [(36, 36), (36, 9), (16, 36)]
    d, g = torch.randn(6, 6, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    found = to_output @ ((to_weight @ g.flatten()) * (to_input @ d.flatten()))
    expected = torch.nn.functional.conv2d(d[None, None], g[None, None]).flatten()
    torch.testing.assert_close(found, expected)


def test_tiles_hold_the_pixels_that_are_not_loose():
    mask = boundary_mask(2, 97, 130)
    sites = Sites(mask)
    assert sites.tile_histogram == torch.bincount(
        torch.nn.functional.unfold(torch.nn.functional.pad(mask[:, None].float(), (0, 2, 0, 3)), 4,
                                   stride=4).sum(1).long().flatten(), minlength=17).tolist()
    for least in (1, 5, 16):
        tiles = sites.tiles(least)
        inside = tiles.writes[tiles.writes < len(sites)]
        assert len(tiles.reads) == sum(sites.tile_histogram[least:])
        assert torch.equal(torch.cat([inside, tiles.loose]).sort().values,
                           torch.arange(len(sites)))
        assert torch.equal(tiles.loose_neighbors, sites.neighbors[tiles.loose])


def test_the_cheaper_way_is_taken():
    """Tiles where wide layers meet full tiles, gathers where pixels are few; both between."""
    full, sparse = [0] * 16 + [4096], [0, 4096] + [0] * 15
    assert gathered.worth_a_tile(full, 256, 256) <= 8
    assert gathered.worth_a_tile(sparse, 256, 256) == 17
    assert gathered.worth_a_tile(full, 16, 16) == 17, 'transforms cost more than narrow products'
    assert gathered.worth_a_tile([0] * 16 + [2], 1024, 1024) == 17, 'too few for the weight'
    least = gathered.worth_a_tile(full, 128, 128)
    assert 1 < gathered.worth_a_tile(full, 512, 512) < least < 17


def test_memory_of_a_name_is_used_again_on_every_level():
    sites = Sites(torch.ones(1, 8, 8, dtype=torch.bool))
    like = torch.zeros(1)
    first = sites.memory((4, 5), like, 'a')
    assert sites.memory((2, 3), like, 'a').data_ptr() == first.data_ptr()
    assert sites.coarse(1).memory((2, 3), like, 'a').data_ptr() == first.data_ptr()
    for other in (sites.memory((4, 5), like), sites.memory((4, 5), like, 'b'),
                  sites.memory((30,), like, 'a')):
        assert other.data_ptr() != first.data_ptr()
    assert sites.memory((5,), like.double(), 'a').dtype == torch.float64


@torch.no_grad()
def test_without_a_name_nothing_is_overwritten():
    """Every layer twice on the same pixels: the first results stay."""
    pixels, x = case(2, 40, 50, 0.5, 6)
    conv, norm = SubMConv2d(6, 6, 0).double(), ActiveBatchNorm(6).double().eval()
    down, up = DownConv2d(6, 6, 0, 1).double(), UpConv2d(6, 6, 0, 1).double()
    layers = [conv, norm, Linear1x1(6, 6).double(), lambda y: conv(y, norm=norm),
              lambda y: conv(y, plus=x), lambda y: up(down(y), y), lambda y: concat(y, y), down,
              lambda y: up(down(y), y, join=True)]
    results = [layer(x).rows for layer in layers]
    kept = [rows.clone() for rows in results]
    other = x.replace_rows(torch.randn_like(x.rows))
    for layer in layers:
        layer(other)
    assert all(torch.equal(a, b) for a, b in zip(results, kept, strict=True))


@torch.no_grad()
def test_cpu_inference_needs_no_spconv():
    pixels, x = case(2, 20, 21, 0.3, 4, dtype=torch.float32)
    y = SubMConv2d(4, 5, level=0)(x)
    assert isinstance(y, RowMap) and y.features.shape == (len(pixels), 5)
