"""``test`` with every metric, and with test-time augmentation."""
import pytest

from tests.tools.scenes import REFINE, SINGLE, SMALL

TEST = ['--cfg-options', *SMALL, *SINGLE]


def test_one_test_run_reports_every_metric(run, tmp_path, refiner):
    result = run('test', REFINE, refiner, '--out', tmp_path / 'maps', *TEST)
    assert result.returncode == 0, result.stderr
    for name in (' mIoU: ', 'low_res/mIoU: ', 'selector/recall: ', 'selector/density: ',
                 'size/small: ', 'size/low_res_small: '):
        assert name in result.stdout + result.stderr, name
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 4


@pytest.mark.slow
def test_test_time_augmentation_through_the_tool(run, tmp_path, refiner):
    result = run('test', REFINE, refiner, '--tta', *TEST,
                 'test_dataloader.dataset.length=1')  # twelve views
    assert result.returncode == 0, result.stderr
    assert ' mIoU: ' in result.stdout + result.stderr
    assert 'selector/' not in result.stdout + result.stderr
