"""Multiply-accumulates of the sparse U-Net: pairs by loops, sums by spconv, totals by hand."""
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsparse.registry import MODELS
from mmsparse.sparse import SparseMap, Topology
from tests.examples import examples


def loops(mask, padding):
    """Pairs and coarse mask, pixel by pixel."""
    b, h, w = mask.shape
    active = {tuple(i) for i in mask.nonzero().tolist()}
    same = sum((i, y + dy, x + dx) in active for i, y, x in active
               for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    sizes = [(n + 2 * padding - 3) // 2 + 1 for n in (h, w)]
    joined = [(i, oy, ox) for i in range(b) for oy in range(sizes[0]) for ox in range(sizes[1])
              for dy in range(3) for dx in range(3)
              if (i, 2 * oy - padding + dy, 2 * ox - padding + dx) in active]
    coarse = torch.zeros(b, *sizes, dtype=torch.bool)
    for place in joined:
        coarse[place] = True
    return same, len(joined), coarse


@examples(30)
@given(h=st.integers(3, 14), w=st.integers(3, 14), padding=st.integers(0, 1),
       share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 99))
def test_pairs_against_loops(h, w, padding, share, seed):
    mask = torch.rand(2, h, w, generator=torch.Generator().manual_seed(seed)) < share
    same, joined, coarse = loops(mask, padding)
    pixels = Topology(mask)
    assert pixels.pairs == same
    assert pixels.strided_pairs(padding) == joined
    assert torch.equal(pixels.coarse(padding).mask, coarse)


@pytest.mark.parametrize('padding', [0, 1])
def test_macs_are_those_of_spconvs_own_pairs(padding):
    """Every spconv convolution that runs, by the kernel map it built."""
    channels = (8, 12, 16)
    unet = MODELS.build(dict(type='mmsparse.SparseUNet', channels=channels, down_padding=padding,
                             engine='sparse'))
    mask = torch.rand(2, 97, 102) < 0.2
    total = 0

    def count(module, inputs, output):
        nonlocal total
        weight = module.weight.shape[0] * module.weight.shape[-1]
        tables = inputs[0].tensor.indice_dict | output.tensor.indice_dict
        if type(module).__name__ == 'SubMConv2d':
            # spconv stores the taps before the middle one; the others mirror them
            half = tables[f'subm{output.level}'].indice_pair_num[:4]
            pairs = 2 * int(half.sum()) + len(output.rows())
        else:
            level = min(inputs[0].level, output.level)
            pairs = int(tables[f'down{level}'].indice_pair_num.sum())
        total += pairs * weight

    def count_linear(module, inputs, output):
        nonlocal total
        total += len(output.rows()) * module.weight.numel()

    hooks = []
    for module in unet.modules():
        if type(module).__name__ in ('SubMConv2d', 'DownConv2d', 'UpConv2d'):
            hooks.append(module.register_forward_hook(count))
        elif type(module).__name__ == 'Linear1x1':
            hooks.append(module.register_forward_hook(count_linear))
    unet(SparseMap.from_mask(torch.randn(2, 3, 97, 102), mask))
    for hook in hooks:
        hook.remove()
    assert unet.macs(mask) == total > 0


def test_full_mask_is_the_dense_count():
    """All pixels, no border: 9 C D per pixel and convolution, on a torus of one level."""
    unet = MODELS.build(dict(type='mmsparse.SparseUNet', channels=(32, )))
    h, w = 40, 50
    pairs = (3 * h - 2) * (3 * w - 2)  # 3x3 neighborhoods cut off at the border
    assert unet.macs(torch.ones(1, h, w, dtype=torch.bool)) == pairs * (3 * 32 + 4 * 32 * 32)


@pytest.mark.slow
@pytest.mark.parametrize('stages, gmacs', [(6, 1059), (5, 865)])
def test_full_density_at_cityscapes_size_is_the_known_cost(stages, gmacs):
    """1024 x 2048, every pixel."""
    channels = (32, 64, 128, 256, 512, 1024)[:stages]
    with torch.device('meta'):
        unet = MODELS.build(dict(type='mmsparse.SparseUNet', channels=channels))
    assert unet.macs(torch.ones(1, 1024, 2048, dtype=torch.bool)) / 1e9 == pytest.approx(
        gmacs, rel=0.002)
