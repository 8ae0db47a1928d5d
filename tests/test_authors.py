"""The rule that draws the authors' weights and inputs, against its own check figures."""
import json
import zlib

import numpy as np
import pytest

from tests import authors

CHECKS = json.loads((authors.FOLDER / 'golden' / 'weights_check.json').read_text())
# Known to the authors' file, but not drawn.
GIVEN = ('img_mean', 'img_std', 'num_batches_tracked')


def test_the_rule():
    assert np.allclose(authors.value('conv.weight', (2, 3)).ravel()[:3],
                       (0.38211404, -0.58453898, -0.05837249), atol=1e-8)
    assert zlib.crc32(authors.picture('picture', 128, 256).tobytes()) == 2484534331


# One of each kind of entry; that the others were drawn alike shows in their methods' tests.
@pytest.mark.parametrize('model', [
    'sparserefine_refiner_narrow_8_12_16', 'sparserefine_learnable_selector', 'effseg_head',
    'swiftnet2019_rn18_single'])
def test_weights_are_those_that_ran(model):
    check = CHECKS[model]
    drawn = {key: value for key, value in authors.state(model, check['prefix']).items()
             if not key.endswith(GIVEN)}
    assert len(drawn) == check['entries']
    assert next(iter(drawn)) == check['first_key']
    total = sum(float(value.double().abs().sum()) for value in drawn.values())
    assert total == pytest.approx(check['sum_of_absolute_values'], rel=1e-7)
    first = drawn[check['first_key']].flatten()[:3].tolist()
    assert first == pytest.approx(check['first_three_values'], rel=1e-6)
