"""The whole U-Net against float64 dense convolutions, forward and gradients, both engines."""
import math

import pytest
import torch

from mmsparse.sparse import SparseMap, SpconvMap
from tests.models.sparserefine.builders import (
    build,
    compare,
    masks,
    randomize_norms,
    relative_error,
)
from tests.oracles import DenseUNet, boundary_mask


@pytest.fixture(autouse=True)
def two_threads():
    """A thread bug needs threads, whatever the environment says."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('engine', ['auto', 'sparse', 'dense'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize(('kind', 'size'), [
    ('boundary', (2, 97, 130)), ('full', (1, 96, 96)),
    pytest.param('random', (2, 96, 101), marks=pytest.mark.slow), ('one_empty', (2, 97, 130))])
def test_equals_the_dense_oracle(engine, training, padding, kind, size):
    torch.manual_seed(0)
    channels = (8, 12, 16, 24)
    net = randomize_norms(build(channels=channels, down_padding=padding, engine=engine))
    image, mask = torch.randn(size[0], 3, *size[1:]), masks(*size)[kind]
    # In float64 a ReLU near zero cannot fall on different sides of it, so the bound is tight and
    # holds for batch statistics too.
    net.double().train(training)
    errors = compare(net, image.double(), mask, padding=padding, depth=len(channels))
    print('float64', *(f'{e:.1e}' for e in errors))
    assert max(errors) < 1e-9
    if not training:
        errors = compare(net.float(), image, mask, padding=padding, depth=len(channels))
        print('float32', *(f'{e:.1e}' for e in errors))
        assert max(errors) < 1e-5


@pytest.mark.parametrize('engine', ['auto', 'sparse', 'dense'])
@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize(('kind', 'size'), [
    ('boundary', (2, 97, 130)), ('full', (1, 96, 96)), ('random', (2, 96, 101)),
    ('one_empty', (2, 97, 130))])
@torch.no_grad()
def test_inference_without_gradients_equals_the_dense_oracle(engine, padding, kind, size):
    """On the CPU by gathers and, in wide levels, Winograd tiles: another way of computing."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 64, 128), down_padding=padding, engine=engine)).eval()
    image, mask = torch.randn(size[0], 3, *size[1:]), masks(*size)[kind]
    state = {k: v.double() for k, v in net.state_dict().items()}
    expected = DenseUNet(state, 3, padding, False)(image.double(), mask[:, None].double())
    found = net(SparseMap.from_mask(image, mask))
    assert relative_error([found], [expected]) < 1e-5
    net.double()
    found = net(SparseMap.from_mask(image.double(), mask))
    assert relative_error([found], [expected]) < 1e-12
    for _ in range(2):  # what is folded stays folded
        net.fuse()
        found = net(SparseMap.from_mask(image.double(), mask))
        assert relative_error([found], [expected]) < 1e-12


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('padding', [0, 1])
def test_dense_below_a_full_level_equals_the_oracle(monkeypatch, padding, training):
    """What `auto` does on CUDA, here on the CPU: rows above, a dense map from some level down."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16, 24), down_padding=padding)).double()
    monkeypatch.setattr(net, '_start', lambda pixels: SpconvMap.of(pixels, dense_above=0.1))
    image, mask = torch.randn(2, 3, 97, 130), boundary_mask(2, 97, 130)
    switched = []
    net.levels.below.down_norm.register_forward_hook(
        lambda module, inputs, output: switched.append(type(output).__name__))
    errors = compare(net.train(training), image.double(), mask, padding=padding, depth=4)
    assert max(errors) < 1e-9 and switched == ['MaskedMap']
    mask = torch.rand(2, 97, 130) < 0.002
    compare(net, image.double(), mask, padding=padding, depth=4)
    assert switched[1] == 'SpconvMap'


@torch.no_grad()
def test_six_stages_without_gradients_equal_the_oracle():
    torch.manual_seed(0)
    net = randomize_norms(build()).eval()
    image, mask = torch.randn(1, 3, 128, 160), boundary_mask(1, 128, 160)
    state = {k: v.double() for k, v in net.state_dict().items()}
    expected = DenseUNet(state, 6, 1, False)(image.double(), mask[:, None].double())
    assert relative_error([net(SparseMap.from_mask(image, mask))], [expected]) < 1e-5


@pytest.mark.parametrize('padding', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_six_stages_at_full_width_equal_the_oracle(padding):
    torch.manual_seed(0)
    net = randomize_norms(build(down_padding=padding)).eval()
    image = torch.randn(1, 3, 96, 97)
    errors = compare(net, image, boundary_mask(1, 96, 97), padding=padding, depth=6)
    assert max(errors) < 1e-5


@pytest.mark.parametrize('engine', ['auto', 'sparse', 'dense'])
@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('where', [(0, 0), (17, 33), (63, 63)])
def test_one_pixel(engine, padding, where):
    """(63, 63) has no parent on an even grid without padding: the coarse branch adds nothing."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16), down_padding=padding, engine=engine)).eval()
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0][where] = True
    image = torch.randn(1, 3, 64, 64)
    assert max(compare(net, image, mask, padding=padding, depth=3)) < 1e-5
    net.zero_grad()
    net.train()  # one row has no variance; it must not raise
    out = net(SparseMap.from_mask(image, mask))
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize('engine', ['auto', 'sparse', 'dense'])
def test_no_pixel_gives_no_rows(engine):
    net = build(channels=(8, 12), engine=engine)
    out = net(SparseMap.from_mask(torch.randn(2, 3, 96, 96), torch.zeros(2, 96, 96).bool()))
    assert out.shape == (0, 8)


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('size', [(2, 97, 130), (1, 192, 256)])
def test_inference_without_gradients_equals_the_oracle(padding, size):
    """On the CPU it takes another way through the layers (more rows than one block of it)."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16, 24), down_padding=padding)).double().eval()
    image, mask = torch.randn(size[0], 3, *size[1:]).double(), boundary_mask(*size, share=0.3)
    expected = DenseUNet(net.state_dict(), 4, padding, False)(image, mask[:, None].double())
    with torch.no_grad():
        found = net(SparseMap.from_mask(image, mask))
    assert relative_error([found], [expected]) < 1e-12


def test_a_batch_of_two_equals_two_batches_of_one():
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16, 24))).eval()
    image, mask = torch.randn(2, 3, 96, 101), boundary_mask(2, 96, 101)
    mask[1, 40:] = False  # very different counts
    both = net(SparseMap.from_mask(image, mask))
    single = [net(SparseMap.from_mask(image[i:i + 1], mask[i:i + 1])) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(single), atol=1e-6, rtol=1e-5)


def test_mirroring_rows_of_the_input_moves_the_output_with_them():
    """The order in which pixels come in does not matter, only where they are."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16))).eval()
    image, mask = torch.randn(2, 3, 96, 96), boundary_mask(2, 96, 96)
    out = net(SparseMap.from_mask(image, mask))
    swapped = net(SparseMap.from_mask(image.flip(0), mask.flip(0)))
    first = int(mask[0].sum())
    torch.testing.assert_close(torch.cat([out[first:], out[:first]]), swapped, atol=1e-6, rtol=1e-5)


LEVEL = {32: 122_624, 64: 488_960, 128: 1_952_768, 256: 7_804_928, 512: 31_207_424}


@pytest.mark.parametrize(('channels', 'total'), [
    ((32, 64, 128, 256, 512), 19_811_488), ((32, 64, 128, 256, 512, 1024), 79_334_560)])
def test_parameter_counts(channels, total):
    net = build(channels=channels)
    assert sum(p.numel() for p in net.parameters()) == total
    level = net.levels
    for c in channels[:-1]:
        own = sum(p.numel() for n, p in level.named_parameters() if not n.startswith('below.'))
        assert own == LEVEL[c] == 119 * c ** 2 + 24 * c
        level = level.below
    c = channels[-1]
    assert sum(p.numel() for p in level.parameters()) == 36 * c ** 2 + 8 * c
    convs = [m for m in net.modules() if type(m).__name__ in
             ('SubMConv2d', 'DownConv2d', 'UpConv2d')]
    assert len(convs) == {5: 45, 6: 55}[len(channels)]
    assert sum(type(m).__name__ == 'ResidualBlock' for m in net.modules()) == 4 * len(channels) - 2


@pytest.mark.parametrize('engine', ['sparse', 'dense'])
def test_autocast_does_not_reach_spconv_and_dense_convolutions(engine):
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 16), engine=engine)).eval()
    pixels = SparseMap.from_mask(torch.randn(1, 3, 96, 96), boundary_mask(1, 96, 96))
    plain = net(pixels)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(net(pixels), plain)
    half = pixels.replace_features(pixels.features.half())
    assert net(half).dtype == torch.float32


@pytest.mark.parametrize('by', ['autocast', 'weights', 'fused'])
@torch.no_grad()
def test_bfloat16_inference_is_close_to_float64(by):
    """A relative error of 2 units of bfloat16's last place, after 14 convolutions."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(16, 32))).eval()
    image, mask = torch.randn(2, 3, 97, 130), boundary_mask(2, 97, 130)
    state = {k: v.double() for k, v in net.state_dict().items()}
    expected = DenseUNet(state, 2, 1, False)(image.double(), mask[:, None].double())
    pixels = SparseMap.from_mask(image, mask)
    if by == 'weights':
        found = net.bfloat16()(pixels)
    else:
        if by == 'fused':
            net.fuse(torch.bfloat16)
            assert net.levels.down.weight.dtype == torch.bfloat16
            assert net.norm.running_var.dtype == torch.float32
        with torch.autocast('cpu', torch.bfloat16):
            found = net(pixels)
    assert found.dtype == torch.bfloat16
    assert relative_error([found], [expected]) < 2 * 2 ** -7


def test_a_bfloat16_step_leaves_float32_gradients():
    net = build(channels=(8, 12, 16)).train()
    pixels = SparseMap.from_mask(torch.randn(2, 3, 97, 130), boundary_mask(2, 97, 130))
    with torch.autocast('cpu', torch.bfloat16):
        net(pixels).float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(channels=()), 'channels'), (dict(channels=(8, 0)), 'channels'),
    (dict(in_channels=0), 'in_channels'), (dict(down_padding=2), 'down_padding must be 0 or 1'),
    (dict(engine='fast'), "one of .*sparse.*got 'fast'")])
def test_bad_settings_fail_when_the_model_is_built(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_bad_input_is_named():
    net = build(channels=(8, 12, 16))
    with pytest.raises(ValueError, match='in_channels is 3, but the map has 4'):
        net(SparseMap.from_mask(torch.randn(1, 4, 96, 96), torch.ones(1, 96, 96).bool()))
    with pytest.raises(ValueError, match='at least 4 x 4 pixels .* got 3 x 96'):
        net(SparseMap.from_mask(torch.randn(1, 3, 3, 96), torch.ones(1, 3, 96).bool()))


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('depth', [1, 2, 3, 4])
def test_the_smallest_allowed_image_works(padding, depth):
    net = build(channels=(4,) * depth, down_padding=padding).eval()
    n = net.min_size
    assert n == (math.ceil(2 ** (depth - 1)) if padding else 2 ** depth - 1)
    assert net(SparseMap.from_mask(torch.randn(1, 3, n, n),
                                   torch.ones(1, n, n).bool())).shape == (n * n, 4)


@pytest.mark.parametrize('engine', ['auto', 'sparse', 'dense'])
@torch.no_grad()
def test_another_memory_format_changes_nothing(engine):
    """``model.to(memory_format=torch.channels_last)`` restrides every 4-dimensional parameter."""
    torch.manual_seed(0)
    net = randomize_norms(build(channels=(8, 12, 16), engine=engine)).eval()
    pixels = SparseMap.from_mask(torch.randn(1, 3, 96, 97), boundary_mask(1, 96, 97))
    expected = net(pixels)
    net.to(memory_format=torch.channels_last)
    assert not net.stem.weight.is_contiguous()
    torch.testing.assert_close(net(pixels), expected)
