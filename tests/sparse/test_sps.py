"""Structure-preserving sparsity against dense maps, loops and float64."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.sparse import (
    SPSConv2d,
    SPSDeformConv2d,
    SPSMap,
    from_dense,
    keep_best,
    neighbors,
    select,
    split,
    sps_layers,
    sum_of_convolutions,
    to_dense,
)
from mmsparse.sparse.sps import check, square
from tests.examples import examples


def grids(splits: int, share: float = 0.5, rois: int = 3, size: tuple[int, int] = (4, 5),
          channels: int = 4, seed: int = 0) -> SPSMap:
    """Random grids after some splits, children drawn anew; float64, with gradients."""
    torch.manual_seed(seed)
    x = from_dense(torch.randn(rois, channels, *size, dtype=torch.double))
    for _ in range(splits):
        x = select(x, torch.rand(len(x.active)) < share)
        x = split(x, torch.randn(len(x.active), 4, channels, dtype=torch.double))
    return x._replace(active=x.active.detach().requires_grad_(),
                      passive=x.passive.detach().requires_grad_())


@examples(40)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3),
       st.floats(0, 1), st.integers(0, 2**31))
def test_invariants_hold_after_any_splits(rois, height, width, splits, share, seed):
    x = grids(splits, share, rois, (height, width), 2, seed)
    check(x)
    area = height * width * 4**splits
    assert x.index.shape == (rois, height * 2**splits, width * 2**splits)
    assert x.index.numel() == rois * area


def test_rows_stay_in_order_of_grid_cell_and_morton_code():
    x = grids(2, 0.6)
    key = [tuple(c) for c in torch.stack([
        x.cells[:, 0], x.cells[:, 1] // 4, x.cells[:, 2] // 4, x.cells[:, 1] // 2 % 2,
        x.cells[:, 2] // 2 % 2, x.cells[:, 1] % 2, x.cells[:, 2] % 2], 1).tolist()]
    assert key == sorted(key)


def test_the_worked_case_of_the_cells():
    """100 grids of 14, of which 10,000 cells are split at each stage, have 112^2 cells each."""
    x = from_dense(torch.zeros(100, 1, 14, 14))
    rows = []
    for _ in range(3):
        keep = keep_best(torch.rand(len(x.active)), x.cells[:, 0] * 0, 1, 10_000)
        x = split(select(x, keep), torch.zeros(10_000, 4, 1))
        rows.append((len(x.active), len(x.passive)))
    assert rows == [(40_000, 9_600), (40_000, 39_600), (40_000, 69_600)]
    count = torch.bincount(x.index.flatten(), minlength=109_600)
    assert (count[:40_000] == 1).all()
    assert count[40_000:].tolist() == [64] * 9_600 + [16] * 30_000 + [4] * 30_000


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_children_that_copy_their_parents_are_a_nearest_upsampling(share):
    x = grids(1)
    x = select(x, torch.rand(len(x.active)) < share)
    fine = split(x, x.active[:, None].expand(-1, 4, -1))
    check(fine)
    assert torch.equal(to_dense(fine), F.interpolate(to_dense(x), scale_factor=2))


def test_freezing_changes_no_cell():
    x = grids(2)
    frozen = select(x, torch.rand(len(x.active)) < 0.5)
    check(frozen)
    assert torch.equal(to_dense(frozen), to_dense(x))
    assert torch.equal(frozen.passive[:len(x.passive)], x.passive), 'in the order of freezing'


def dense_conv(x: SPSMap, conv: SPSConv2d, dilation: int) -> torch.Tensor:
    weight = conv.weight.permute(0, 3, 1, 2)
    full = F.conv2d(to_dense(x), weight, conv.bias, dilation=dilation,
                    padding=weight.shape[-1] // 2 * dilation)
    return full[x.cells[:, 0], :, x.cells[:, 1], x.cells[:, 2]]


def gradients(value: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pattern = torch.randn(value.shape, dtype=value.dtype, generator=generator)
    return torch.autograd.grad((value * pattern).sum(), inputs, allow_unused=True)


@pytest.mark.parametrize('block', [1, 1000, 1 << 21])
@pytest.mark.parametrize('dilation', [1, 3, 5])
@pytest.mark.parametrize('splits', [0, 1, 3])
def test_a_convolution_equals_the_dense_one(splits, dilation, block, monkeypatch):
    monkeypatch.setitem(sps_layers.BLOCK, 'cpu', block)
    x = grids(splits, 0.4)
    conv = SPSConv2d(4, 3, dilation=dilation).double()
    inputs = [x.active, x.passive, conv.weight, conv.bias]
    mine, true = conv(x), dense_conv(x, conv, dilation)
    assert (mine - true).abs().max() < 1e-10
    for a, b in zip(gradients(mine, inputs), gradients(true, inputs), strict=True):
        torch.testing.assert_close(
            a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-10)


def test_a_large_grid_of_many_threads():
    """96x96 cells and more, so that a race between threads would show."""
    x = grids(3, 0.7, rois=4, size=(14, 13), channels=8)
    conv = SPSConv2d(8, 8, dilation=3).double()
    inputs = [x.active, x.passive, conv.weight, conv.bias]
    mine, true = conv(x), dense_conv(x, conv, 3)
    assert (mine - true).abs().max() < 1e-10
    for a, b in zip(gradients(mine, inputs), gradients(true, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(
        gradients(conv(x), inputs), gradients(conv(x), inputs), strict=True)), 'deterministic'


def test_kernels_larger_than_the_grid_and_of_other_sizes():
    x = grids(0, size=(1, 1))
    for size, dilation in ((3, 5), (5, 1), (1, 1)):
        conv = SPSConv2d(4, 2, kernel_size=size, dilation=dilation).double()
        torch.testing.assert_close(conv(x), dense_conv(x, conv, dilation))
    with pytest.raises(ValueError, match='kernel_size must be odd, got 2'):
        SPSConv2d(4, 2, kernel_size=2)


@pytest.mark.parametrize('rectify', [False, True])
def test_sums_of_branches_and_gradcheck(rectify):
    x = grids(1, 0.5, 2, (2, 3), 2)
    tables = [neighbors(x, square(3, d)) for d in (1, 3)]
    params = [torch.randn(*shape, dtype=torch.double, requires_grad=True)
              for shape in ((3, 18), (3, 18), (3,), (3,))]

    def total(bank, a, b, c, d):
        return sum_of_convolutions(bank, tables, [a, b], [c, d], rectify)

    bank = x.bank.detach().requires_grad_()
    assert torch.autograd.gradcheck(total, [bank, *params])
    parts = [sum_of_convolutions(bank, [t], [w], [b]) for t, w, b in zip(
        tables, params[:2], params[2:], strict=True)]
    torch.testing.assert_close(
        total(bank, *params), sum(p.relu() if rectify else p for p in parts))


def test_half_precision_sums_gradients_in_float32():
    """A passive row that a thousand taps read: bfloat16 sums would stop growing at 256."""
    bank = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    table = torch.zeros(1000, 1, dtype=torch.int32)
    out = sum_of_convolutions(bank, [table], [torch.ones(1, 1)], [torch.zeros(1)])
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and bank.grad[0] == 1000


def test_autocast_decides_the_precision():
    x = grids(1)
    x = x._replace(active=x.active.float(), passive=x.passive.float())
    conv = SPSConv2d(4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv(x), rtol=0.05, atol=0.05)
    out.sum().backward()
    assert conv.weight.grad.dtype == torch.float32


def sampled(dense: torch.Tensor, roi: int, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Bilinear feature of one grid at one point, zeros beyond it, by loops."""
    _, _, h, w = dense.shape
    y0, x0 = int(y.detach().floor()), int(x.detach().floor())
    total = dense.new_zeros(dense.shape[1])
    for i in (0, 1):
        for j in (0, 1):
            if 0 <= y0 + i < h and 0 <= x0 + j < w:
                weight = (1 - (y - y0 - i).abs()) * (1 - (x - x0 - j).abs())
                total = total + weight * dense[roi, :, y0 + i, x0 + j]
    return total


@pytest.mark.parametrize('block', [1, 1 << 21])
@pytest.mark.parametrize('splits', [0, 2])
def test_a_deformable_convolution_equals_sampling_the_dense_map(splits, block, monkeypatch):
    monkeypatch.setitem(sps_layers.BLOCK, 'cpu', block)
    x = grids(splits, 0.3, 2, (3, 3), 3)
    conv = SPSDeformConv2d(3, 2).double()
    torch.nn.init.normal_(conv.offset.weight, std=0.7)
    inputs = [x.active, x.passive, *conv.parameters()]
    dense, rows = to_dense(x), []
    for (roi, y, x_), feature in zip(x.cells.tolist(), x.active, strict=True):
        offsets = conv.offset(feature).view(9, 2)
        rows.append(torch.cat([sampled(dense, roi, y + o[0], x_ + o[1]) for o in offsets]))
    true, mine = conv.linear(torch.stack(rows)), conv(x)
    assert (mine - true).abs().max() < 1e-10
    for a, b in zip(gradients(mine, inputs), gradients(true, inputs), strict=True):
        torch.testing.assert_close(
            a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-9)


def test_a_deformable_convolution_starts_as_a_plain_one():
    x = grids(2)
    conv, plain = SPSDeformConv2d(4, 4).double(), SPSConv2d(4, 4).double()
    with torch.no_grad():
        plain.weight.copy_(conv.linear.weight.view(4, 3, 3, 4))
        plain.bias.copy_(conv.linear.bias)
    torch.testing.assert_close(conv(x), plain(x))
    small = grids(1, 0.5, 1, (2, 2))
    assert torch.autograd.gradcheck(
        lambda a, p: conv(small._replace(active=a, passive=p)), [small.active, small.passive])


@pytest.mark.parametrize(
    'rois, size, share', [(0, (3, 3), 0.5), (2, (3, 3), 0.0), (2, (1, 1), 1.0)])
def test_nothing_to_do(rois, size, share):
    x = grids(2, share, rois, size)
    check(x)
    for conv in (SPSConv2d(4, 5).double(), SPSDeformConv2d(4, 5).double()):
        out = conv(x)
        assert out.shape == (len(x.active), 5)
        out.sum().backward()


@examples(60)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 99))
def test_the_best_of_each_group_are_kept(counts, budget, seed):
    torch.manual_seed(seed)
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    score = torch.randint(0, 4, (len(group),)).float()  # many ties
    keep = keep_best(score, group, len(counts), budget)
    for g, count in enumerate(counts):
        mine, kept = score[group == g], keep[group == g]
        assert int(kept.sum()) == min(count, budget)
        if 0 < int(kept.sum()) < count:
            assert mine[kept].min() >= mine[~kept].max()
        alone = keep_best(mine, torch.zeros(count, dtype=torch.long), 1, budget)
        assert torch.equal(alone, kept), 'a group does not depend on the others'


def test_a_broken_map_is_found():
    x = grids(2)
    index = x.index.clone()
    index[0, 0, 0] = index[0, -1, -1]
    with pytest.raises(AssertionError):
        check(x._replace(index=index))
