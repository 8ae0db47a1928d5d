"""The backend of exported graphs, on pixels, against the dense one in float64."""
import pytest
import torch
from torch import nn

from mmsparse.models.sparserefine.extractor import SparseUNet
from mmsparse.sparse import MaskedMap, SparseMap, TracedRowMap


def masks(size):
    """None, all, one in every corner, some."""
    height, width = size
    yield torch.zeros(1, height, width, dtype=torch.bool)
    yield torch.ones(1, height, width, dtype=torch.bool)
    for y in (0, height - 1):
        for x in (0, width - 1):
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            mask[0, y, x] = True
            yield mask
    for density in (0.02, 0.3):
        yield torch.rand(1, height, width) < density


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('size', [(15, 16), (16, 15), (21, 23)])
def test_the_unet_is_that_of_the_dense_backend(size, padding):
    net = SparseUNet(channels=(4, 6, 8), down_padding=padding).double().eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    for mask in masks(size):
        pixels = SparseMap.from_mask(image, mask)
        with torch.no_grad():
            found = net._run(TracedRowMap.of(pixels)).rows()
            assert found.shape == (mask.sum(), 4)
            if mask.any():
                torch.testing.assert_close(found, net._run(MaskedMap.of(pixels)).rows())


def test_the_spare_row_stays_zero():
    """What tables name where nothing is active: no layer may put a value there."""
    mask = torch.rand(1, 9, 12) < 0.4
    x = TracedRowMap.of(SparseMap.from_mask(torch.randn(1, 3, 9, 12), mask))
    norm = nn.BatchNorm1d(3).eval()
    nn.init.constant_(norm.bias, 5)
    maps = [x.norm_relu(norm), x.subm_conv(torch.randn(4, 3, 3, 3)),
            x.down_conv(torch.randn(4, 3, 3, 3), 1), x.linear(torch.randn(4, 3)),
            x.up_conv(x.down_conv(torch.randn(4, 3, 3, 3), 1), torch.randn(5, 3, 3, 4), 1)]
    for made in maps:
        assert not made.features[-1].any() and made.features[:-1].any()


def test_several_images_are_refused():
    pixels = SparseMap.from_mask(torch.randn(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match='one image can be traced, got 2'):
        TracedRowMap.of(pixels)
