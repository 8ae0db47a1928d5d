"""CRM on a GPU gives what it gives on the CPU; only tiles have to be there."""
import pytest
import torch

from tests.models.crm.builders import build, picture

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('test_cfg', [
    {}, dict(max_bytes=2**28), dict(selector=dict(type='mmsparse.BoundarySelector'))])
@pytest.mark.parametrize('maps', ['cpu', 'cuda'])
def test_as_on_the_cpu(test_cfg, maps):
    image, mask = picture((230, 250))
    expected = build(**test_cfg).refine(image, mask)
    found = build(**test_cfg).cuda().refine(image.to(maps), mask.to(maps))
    assert found.mask.device.type == maps
    torch.testing.assert_close(found.mask.cpu(), expected.mask, atol=2e-3, rtol=0)


def test_half_precision():
    image, mask = picture((230, 250))
    expected = build().refine(image, mask).mask
    found = build(amp=True).cuda().refine(image, mask).mask
    assert 0 < float((found - expected).abs().mean()) < 0.02
