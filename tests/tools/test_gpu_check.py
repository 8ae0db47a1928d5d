"""``gpu_check`` as far as it goes without a GPU."""
import json

import pytest
import torch


@pytest.mark.slow
def test_the_gpu_check_runs_where_it_can(run, tmp_path):
    """On the CPU, small: the way to the table, not the figures in it."""
    result = run('gpu_check', '--device', 'cpu', '--precision', 'fp32', '--shape',
                 64, 128, '--batch-size', 1, '--iterations', 1, '--no-tests', '--baselines',
                 'segnext', '--out', tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(next(tmp_path.glob('*.json')).read_text())
    row, = found['results']
    assert row['refined']['density'] == pytest.approx(0.1, abs=1e-3) and row['speedup'] > 0
    table = next(tmp_path.glob('*.md')).read_text()
    assert '| segnext | fp32 | 1 |' in table and '| 1.45x |' in table
    assert [(e['stages'], e['precision'], e['batch_size']) for e in found['engines']] == [
        (5, 'fp32', 1), (6, 'fp32', 1)]
    assert all(e[name]['difference'] < 1e-5 for e in found['engines'] for name in ('dense', 'auto'))
    assert 'Oracle tests: not run' in table


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_the_gpu_check_says_that_there_is_no_gpu(start):
    result = start('gpu_check')
    assert result.returncode == 1 and result.stderr.startswith('gpu_check.py: no CUDA device here')
