"""``bench`` and ``bench_plots``: the way to the figures, not the figures."""
import json

import pytest


@pytest.mark.slow
def test_bench_writes_ratios_and_sets_them_beside_the_committed(run, tmp_path):
    """Small: the way to the figures, not the figures."""
    out = tmp_path / 'work_dirs/bench/summary.json'
    small = ('--shape', 128, 256, '--iterations', 1)
    result = run('bench', *small, '--only', 'unet_5', 'hrnet', '--committed', 'no')
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    for key in ('unet_speedup_5', 'unet_speedup_5_wide', 'unet_memory_ratio', 'e2e_hrnet'):
        assert found[key] > 0
    assert 0 < found['overhead_share'] == max(found['overhead_hrnet'], found['overhead_hrnet_s'])
    assert found['unet_5']['auto']['difference'] < 1e-5
    pair = found['pair_hrnet']
    assert pair['refined']['density'] == pytest.approx(0.118, abs=1e-3)
    assert pair['floor_ms']['refined'] > pair['refined']['stages']['low-resolution pass']
    assert pair['dense']['milliseconds'] == min(
        ms for name, ms in pair['variants'].items() if name.startswith('dense'))
    assert pair['unet_gmacs']['refined'] > 3 * pair['unet_gmacs']['refined-s']

    again = run('bench', *small, '--only', 'unet_6', '--committed', out)
    assert again.returncode == 0, again.stderr
    later = json.loads(out.read_text())
    assert later['e2e_hrnet'] == found['e2e_hrnet'] and later['unet_speedup_6'] > 0
    line = next(x for x in again.stdout.splitlines() if 'e2e_hrnet' in x)
    assert line.count(f'{found["e2e_hrnet"]:.2f}') == 2

    plots = run('bench_plots', '--only', 'break_even', '--summary', out, '--shares',
                0.1, 1.0, '--out', tmp_path)
    assert plots.returncode == 0, plots.stderr
    figures = json.loads((tmp_path / 'plots.json').read_text())
    assert (tmp_path / 'break_even.png').is_file()
    assert list(figures['break_even']) == ['hrnet', 'hrnet_s']
    for model, name, unet in (('refined', 'hrnet', '6'), ('refined-s', 'hrnet_s', 's')):
        rest = pair[model]['milliseconds'] - pair[model]['stages']['U-Net']
        for share, speedup in figures['break_even'][name]['speedup'].items():
            assert speedup == pytest.approx(
                pair['dense']['milliseconds'] / (rest + figures['unet_ms'][unet][share]))


def test_plots_need_a_summary(start, tmp_path):
    result = start('bench_plots', '--summary', tmp_path / 'none.json')
    assert result.returncode == 1 and 'none.json does not exist' in result.stderr
