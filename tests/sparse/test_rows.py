"""Rows on the CPU: every way of a convolution against loops, fusions, memory, precision."""
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.sparse import (
    ActiveBatchNorm,
    DownConv2d,
    MaskedMap,
    RowMap,
    SparseMap,
    SubMConv2d,
    Topology,
    UpConv2d,
)
from mmsparse.sparse.backends import gathered
from mmsparse.sparse.backends import rows as rows_backend
from mmsparse.sparse.backends.arena import Arena
from mmsparse.sparse.backends.winograd import squares
from tests.examples import examples
from tests.oracles import as_pixels, boundary_mask, loop_down, loop_subm, loop_up


def case(batch, height, width, share, channels, seed=0, dtype=torch.float64):
    """Rows of random pixels, and their numbers."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, height, width, generator=g) < share
    image = torch.randn(batch, channels, height, width, generator=g, dtype=dtype)
    pixels = SparseMap.from_mask(image, mask)
    return pixels, RowMap.of(pixels, dtype)


def tiled(x, weight, least=1):
    """A submanifold convolution by Winograd on tiles with so many pixels, gathers elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathered, 'worth_a_tile', lambda *_: least)
        y = x.subm_conv(weight)
        y.rows()  # computed while the patch holds
        return y


def assert_rows(found, expected, indices, tolerance=1e-9):
    """Rows against ``{(b, y, x): vector}``; the spare row is zero."""
    assert not found.padded[-1].any()
    for row, index in zip(found.rows(), indices.tolist(), strict=True):
        torch.testing.assert_close(row.double(), expected[tuple(index)], atol=tolerance,
                                   rtol=tolerance)


sizes = dict(batch=st.integers(1, 2), height=st.integers(3, 14), width=st.integers(3, 14),
             share=st.sampled_from([0.05, 0.4, 1.0]), seed=st.integers(0, 99))


@examples(25)
@given(**sizes)
def test_every_way_of_a_submanifold_convolution_equals_loops(batch, height, width, share, seed):
    """By tiles alone, by tiles and gathers, by gathers alone."""
    pixels, x = case(batch, height, width, share, 3, seed)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = loop_subm(as_pixels(pixels.features, pixels.topology.indices), weight)
    for least in (1, 6, 17):
        assert_rows(tiled(x, weight, least), expected, pixels.topology.indices)


@pytest.mark.parametrize('least', [1, 8, 17])
@pytest.mark.parametrize('size', [(40, 50), (97, 130)])
@torch.no_grad()
def test_norm_and_sum_within_the_convolution(monkeypatch, least, size):
    """A norm or a sum that joins the convolution gives what it gives after it, in many blocks."""
    monkeypatch.setattr(gathered, 'worth_a_tile', lambda *_: least)
    monkeypatch.setattr(gathered, 'BLOCK', 1 << 14)
    monkeypatch.setattr(gathered, 'ROWS', 1)
    pixels, x = case(2, *size, 0.5, 6)
    conv, norm = SubMConv2d(6, 7).double(), ActiveBatchNorm(7).double().eval()
    for value in (norm.weight.data, norm.bias.data, norm.running_mean):
        value.normal_()
    norm.running_var.uniform_(0.5, 2)
    plus = x.replace_rows(torch.randn(len(pixels), 7).double())
    done = conv(x)
    done.rows()
    torch.testing.assert_close(norm(conv(x)).rows(), norm(done).rows())
    torch.testing.assert_close(conv(x).add(plus).rows(), done.rows() + plus.rows())
    # what comes second finds the first one there
    torch.testing.assert_close(norm(conv(x).add(plus)).rows(), norm(done.add(plus)).rows())
    torch.testing.assert_close(norm(conv(x)).add(plus).rows(), norm(done).rows() + plus.rows())
    dense = norm(conv(MaskedMap.of(pixels)))
    torch.testing.assert_close(norm(conv(x)).rows(), dense.rows())
    bias = torch.randn(7).double()
    expected = (done.rows() + bias).relu()
    torch.testing.assert_close(conv(x).bias_relu(bias).rows(), expected)
    torch.testing.assert_close(norm(conv(x).bias_relu(bias)).rows(),
                               norm(x.replace_rows(expected)).rows())


@examples(25)
@given(padding=st.integers(0, 1), **sizes)
@torch.no_grad()
def test_strided_convolution_and_its_inverse_equal_loops(padding, batch, height, width, share,
                                                         seed):
    pixels, x = case(batch, height, width, share, 3, seed)
    down, up = DownConv2d(3, 4, padding).double(), UpConv2d(4, 2, padding).double()
    coarse = down(x)
    places = pixels.topology.indices
    expected = loop_down(as_pixels(pixels.features, places), down.weight, (height, width), padding)
    if coarse is None:
        assert not expected
        return
    assert {tuple(c) for c in coarse.topology.indices.tolist()} == set(expected)
    assert_rows(coarse, expected, coarse.topology.indices)
    expected = loop_up(expected, up.weight, [tuple(i) for i in places.tolist()], padding)
    assert_rows(up(coarse, x), expected, places)
    joined = x.concat(up(coarse, x))
    assert torch.equal(joined.rows()[:, :3], pixels.features)
    assert_rows(joined.replace_rows(joined.rows()[:, 3:]), expected, places)


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
    x = RowMap.of(SparseMap.from_mask(torch.randn(2, channels, 97, 130), mask), torch.float32)
    weight = torch.randn(channels, 3, 3, channels)
    double = RowMap.of(SparseMap(x.rows().double(), x.topology), torch.float64)
    expected = tiled(double, weight.double(), 17).rows()
    for least in (1, 9):
        found = tiled(x, weight, least).rows()
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
    pixels = Topology(mask)
    assert pixels.tile_histogram == torch.bincount(
        torch.nn.functional.unfold(torch.nn.functional.pad(mask[:, None].float(), (0, 2, 0, 3)), 4,
                                   stride=4).sum(1).long().flatten(), minlength=17).tolist()
    for least in (1, 5, 16):
        tiles = pixels.tiles(least)
        inside = tiles.writes[tiles.writes < len(pixels)]
        assert len(tiles.reads) == sum(pixels.tile_histogram[least:])
        assert torch.equal(torch.cat([inside, tiles.loose]).sort().values,
                           torch.arange(len(pixels)))
        assert torch.equal(tiles.loose_neighbors, pixels.neighbors[tiles.loose])


def test_the_cheaper_way_is_taken():
    """Tiles where wide layers meet full tiles, gathers where pixels are few; both between."""
    full, sparse = [0] * 16 + [4096], [0, 4096] + [0] * 15
    assert gathered.worth_a_tile(full, 256, 256) <= 8
    assert gathered.worth_a_tile(sparse, 256, 256) == 17
    assert gathered.worth_a_tile(full, 16, 16) == 17, 'transforms cost more than narrow products'
    assert gathered.worth_a_tile([0] * 16 + [2], 1024, 1024) == 17, 'too few for the weight'
    least = gathered.worth_a_tile(full, 128, 128)
    assert 1 < gathered.worth_a_tile(full, 512, 512) < least < 17


def test_memory_comes_back_when_its_last_tensor_is_gone():
    arena = Arena()
    first = arena.take((4, 5), torch.float32)
    place, view = first.data_ptr(), first[1:].T
    del first
    second = arena.take((4, 5), torch.float32)
    assert second.data_ptr() != place, 'a view still stands there'
    del view
    again = arena.take((5, 8), torch.bfloat16)  # the same 80 bytes
    assert again.data_ptr() == place and again.dtype == torch.bfloat16
    other = arena.take((3,), torch.float64)
    assert other.data_ptr() != place
    del again
    assert arena.take((2, 4), torch.float64).data_ptr() == place, 'a part of it'


def test_a_small_request_leaves_a_large_block_and_a_large_one_replaces_a_small():
    arena = Arena()
    small = arena.take((10,), torch.float32)
    del small
    large = arena.take((100,), torch.float32)
    assert not arena.free, 'given back before more was asked for'
    place = large.data_ptr()
    del large
    small = arena.take((10,), torch.float32)
    assert small.data_ptr() != place and len(arena.free) == 1


def test_a_result_does_not_keep_the_arena():
    arena = Arena()
    result, other = arena.take((4, 5), torch.float32), arena.take((1000,), torch.float32)
    del other
    free = weakref.ref(arena.free[0])
    del arena
    assert free() is None and result.zero_().sum() == 0


OPERATIONS = st.lists(st.tuples(
    st.sampled_from(['conv', 'conv', 'norm', 'bias', 'linear', 'add', 'add', 'concat', 'down',
                     'up', 'forget', 'forget', 'read']),
    st.integers(0, 99), st.integers(0, 99)), min_size=4, max_size=25)


@examples(40)
@given(operations=OPERATIONS, padding=st.integers(0, 1), seed=st.integers(0, 99),
       share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
@torch.no_grad()
def test_any_graph_of_layers_equals_the_dense_oracle(operations, padding, seed, share):
    """Skips, several readers of one map, maps that are dropped: no memory is given out twice."""
    torch.manual_seed(seed)
    pixels, x = case(2, 13, 18, share, 3, seed)
    maps = [(x, MaskedMap.of(pixels), 0)]  # rows, oracle, level
    for kind, i, j in operations:
        row, dense, level = maps[i % len(maps)]
        partners = [m for m in maps if m[2] == level]
        other = partners[j % len(partners)]
        c = dense.data.shape[1]
        if kind == 'forget':
            if len(maps) > 1:
                del maps[i % len(maps)]
            continue
        if kind == 'read':
            row.rows()
            continue
        if kind == 'conv':
            weight = torch.randn(3, 3, 3, c).double() / c
            new = row.subm_conv(weight), dense.subm_conv(weight), level
        elif kind == 'linear':
            weight = torch.randn(4, c).double() / c
            new = row.linear(weight), dense.linear(weight), level
        elif kind == 'norm':
            norm = ActiveBatchNorm(c).double().eval()
            norm.running_mean.normal_()
            new = row.norm_relu(norm), dense.norm_relu(norm), level
        elif kind == 'bias':
            bias = torch.randn(c).double()
            new = row.bias_relu(bias), dense.bias_relu(bias), level
        elif kind == 'add':
            same = [m for m in partners if m[1].data.shape[1] == c]
            other = same[j % len(same)]
            new = row.add(other[0]), dense.add(other[1]), level
        elif kind == 'concat':
            if c + other[1].data.shape[1] > 12:
                continue
            new = row.concat(other[0]), dense.concat(other[1]), level
        elif kind == 'down':
            weight = torch.randn(3, 3, 3, c).double() / c
            coarse = row.down_conv(weight, padding), dense.down_conv(weight, padding)
            if level == 2 or None in coarse:
                assert coarse[0] is None or coarse[1] is not None
                continue
            new = *coarse, level + 1
        else:
            below = [m for m in maps if m[2] == level + 1]
            if not below:
                continue
            coarse = below[j % len(below)]
            weight = torch.randn(2, 3, 3, coarse[1].data.shape[1]).double()
            new = (row.up_conv(coarse[0], weight, padding),
                   dense.up_conv(coarse[1], weight, padding), level)
        maps.append(new)
    gc.collect()
    for row, dense, _ in maps:
        torch.testing.assert_close(row.rows(), dense.rows(), atol=1e-9, rtol=1e-9)
        assert not row.padded[-1].any()


@pytest.mark.parametrize('kind', ['boundary', 'full'])
@torch.no_grad()
def test_bfloat16_accumulates_in_float32(kind):
    """A sum of 9 x 512 products: rounding of what goes in and comes out, no more."""
    mask = boundary_mask(1, 40, 50) if kind == 'boundary' else torch.ones(1, 40, 50).bool()
    pixels = SparseMap.from_mask(torch.randn(1, 512, 40, 50), mask)
    conv, x = SubMConv2d(512, 8), RowMap.of(pixels, torch.bfloat16)
    rounded = SparseMap(x.rows().double(), x.topology)
    expected = MaskedMap.of(rounded).subm_conv(conv.weight.bfloat16().double()).rows()
    found = conv(x).rows()
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() / expected.norm() < 2 ** -8
    added = conv(x).add(conv(x)).rows()
    assert (added - 2 * expected).norm() / expected.norm() < 2 ** -6


@torch.no_grad()
def test_cpu_inference_needs_no_spconv(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'spconv', None)
    pixels, x = case(2, 20, 21, 0.3, 4, dtype=torch.float32)
    assert SubMConv2d(4, 5)(x).rows().shape == (len(pixels), 5)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(('n', 'channels'), [
    (0, 16), (1, 16), (31, 16), (32, 16), (1000, 7), (70, 512), (9, 600)])
def test_norms_of_narrow_rows(monkeypatch, n, channels, dtype, tolerance):
    """Folded into wide ones, whatever is left over, in blocks; in place."""
    monkeypatch.setattr(rows_backend, 'NORM_BLOCK', 1 << 11)
    g = torch.Generator().manual_seed(0)
    rows, scale, shift = (torch.randn(*shape, generator=g).to(dtype)
                          for shape in ((n, channels), (channels,), (channels,)))
    expected = (rows.double() * scale.double() + shift.double()).relu()
    for out in (torch.empty_like(rows), rows):
        rows_backend.affine_relu(rows, scale, shift, out=out)
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
