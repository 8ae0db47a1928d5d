"""``calibrate`` as a user calls it."""
import json

import pytest
from mmengine.config import Config

from tests.tools.scenes import DENSE, REFINE, SINGLE, SMALL


def test_calibrate_writes_what_a_config_inherits(run, start, tmp_path, segmentor):
    arguments = [REFINE, segmentor, '--target-recall', '0.8', '--out', 'c.json', '--images', 3,
                 '--cfg-options', *SMALL, *SINGLE]
    result = run('calibrate', *arguments)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'c.json').read_text())['calibration']
    assert found['recall'] >= 0.8 and found['images'] == 3 and found['split'] == 'val'
    assert 0 < found['density'] <= 1 and (tmp_path / 'c.png').stat().st_size > 1000
    assert f'alpha = {found["alpha"]:.3g} written to c.json' in result.stdout
    assert 'training images' not in result.stderr

    (tmp_path / 'mine.py').write_text(
        f"_base_ = ['{REFINE}', 'c.json']\n"
        'model = dict(selector=dict(alpha=_base_.calibration.alpha))\n')
    assert Config.fromfile(tmp_path / 'mine.py').model.selector.alpha == found['alpha']

    again = start('calibrate', *arguments)
    assert again.returncode == 1
    assert again.stderr == 'calibrate.py: c.json exists; --force overwrites it\n'


@pytest.mark.parametrize('split, word', [('train', 'training images'), ('test', 'test images')])
def test_calibrate_warns_of_the_wrong_images(run, tmp_path, segmentor, split, word):
    result = run('calibrate', REFINE, segmentor, '--density', '0.1', '--split',
                 split, '--images', 2, '--cfg-options', *SMALL, *SINGLE)
    assert result.returncode == 0, result.stderr
    assert f'calibrate.py: calibrated on {word}' in result.stderr
    written = tmp_path / 'work_dirs' / REFINE.stem / 'calibration.json'
    assert json.loads(written.read_text())['calibration']['density'] <= 0.1


@pytest.mark.slow
def test_calibrate_for_a_time_per_image(run, tmp_path, segmentor):
    def calibrate(budget):
        return run('calibrate', REFINE, segmentor, '--latency-budget', budget,
                   '--images', 2, '--force', '--out', 'c.json', '--cfg-options', *SMALL, *SINGLE)

    plenty = calibrate(1e9)
    assert plenty.returncode == 0, plenty.stderr
    found = json.loads((tmp_path / 'c.json').read_text())['calibration']
    assert found['alpha'] == 0 < found['expected_ms_p50'] <= found['expected_ms_p95']
    assert f'{found["expected_ms_p95"]:.0f} ms (95th percentile)' in plenty.stdout
    nothing = calibrate(0.001)
    assert nothing.returncode == 1 and 'no threshold keeps a budget of 0.001 ms' in nothing.stderr


def test_calibrate_refuses_a_model_without_selector(run, tmp_path, segmentor):
    result = run('calibrate', DENSE, segmentor, '--density', '0.1')
    assert result.returncode == 1
    assert 'builds EncoderDecoder, not SparseRefineSegmentor' in result.stderr
