"""The paper's baselines and what is derived from their measurements, by hand."""
import pytest

from mmsparse.engine.baselines import BASELINES, Comparison, Variant, variants
from mmsparse.engine.benchmark import Measurement


def test_every_baseline_has_its_configs(root):
    for baseline in BASELINES.values():
        for file in baseline.configs.values():
            assert (root / 'configs' / 'sparserefine' / file).is_file()
        assert 0 < baseline.density < 1


def test_on_a_cpu_the_dense_model_is_measured_in_every_way():
    import torch

    found = variants(torch.device('cpu'))
    assert {v[1:] for v in found if v.model == 'dense'} >= {
        ('torch', 'float32'), ('openvino', 'float32')}
    assert [v.model for v in found if v.model != 'dense'] == ['refined', 'refined', 'refined-s']
    assert found[-1][1:] == found[-2][1:] and found[-1].backend == 'openvino'
    assert variants(torch.device('cuda')) == [Variant('dense'), Variant('refined')]


def test_speedup_overhead_and_floor_by_hand():
    """The fastest dense way against the fastest refining one."""
    stages = {'low-resolution pass': 50., 'U-Net': 100., 'gathering': 6., 'other': 4.}

    def measured(name, milliseconds, **kwargs):
        return Measurement(name, 1, 'fp32', 'predict', milliseconds, p95=milliseconds, **kwargs)

    found = Comparison({m.name: m for m in (
        measured('dense torch float32', 900), measured('dense openvino bfloat16', 300),
        measured('refined torch float32', 450, stages={}),
        measured('refined openvino bfloat16', 150, stages=stages),
        measured('refined-s openvino bfloat16', 75, stages=stages | {'U-Net': 25.}))},
        unet_gmacs={'refined': 20, 'refined-s': 5})
    assert found.fastest('dense').name == 'dense openvino bfloat16'
    assert found.speedup('refined') == 2 and found.speedup('refined-s') == 4
    assert found.overhead('refined') == pytest.approx(10 / 160)
    assert found.floor('refined', rate=200) == pytest.approx(50 + 100)
    assert found.floor('refined-s', rate=200) == pytest.approx(50 + 25)
