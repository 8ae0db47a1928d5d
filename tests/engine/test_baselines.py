"""The paper's baselines and what is derived from their measurements, by hand."""
import pytest

from mmsparse.engine.baselines import BASELINES, PairMeasurement
from mmsparse.engine.benchmark import Measurement


def test_every_baseline_has_its_configs(root):
    for baseline in BASELINES.values():
        for file in baseline.configs.values():
            assert (root / 'configs' / 'sparserefine' / file).is_file()
        assert 0 < baseline.density < 1


def test_speedup_overhead_and_floor_by_hand():
    stages = {'low-resolution pass': 50., 'U-Net': 100., 'gathering': 6., 'other': 4.}
    pair = PairMeasurement(
        dense=Measurement('dense', 1, 'fp32', 'predict', milliseconds=300, p95=300),
        refined=Measurement('refined', 1, 'fp32', 'predict', milliseconds=150, p95=150,
                            stages=stages),
        unet_gmacs=20)
    assert pair.speedup == 2
    assert pair.overhead == pytest.approx(10 / 160)
    assert pair.floor(rate=200) == pytest.approx(50 + 100)
