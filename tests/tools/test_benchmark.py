"""``benchmark`` as a user calls it."""
import json

import pytest

from tests.tools.scenes import DENSE, REFINE


def test_benchmark_compares_and_writes_json(run, tmp_path):
    result = run('benchmark', DENSE, REFINE, '--shape', 128, 256, '--density',
                 '0.1', '--iterations', 2, '--warmup', 1, '--batch-size', 1, 2, '--out', 'b.json')
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / 'b.json').read_text())
    assert figures['random_weights'] and set(figures['machine']) == {'device', 'torch', 'engine'}
    assert [(r['name'], r['batch_size']) for r in figures['results']] == [
        (path.stem, size) for size in (1, 2) for path in (DENSE, REFINE)]
    refined = figures['results'][1]
    assert refined['density'] == pytest.approx(0.1, abs=1e-3) and 'U-Net' in refined['stages']
    for word in ('low-resolution pass', 'GMACs', 'p95'):
        assert word in ' '.join(result.stdout.split())


@pytest.mark.slow
@pytest.mark.usefixtures('computes_bfloat16')
def test_benchmark_by_openvino_in_bfloat16(run, tmp_path):
    result = run('benchmark', DENSE, REFINE, '--shape', 128, 256, '--density',
                 '0.1', '--iterations', 1, '--warmup', 1, '--fuse', '--backend', 'openvino',
                 '--dtype', 'bfloat16', '--out', 'b.json')
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / 'b.json').read_text())
    assert (figures['backend'], figures['dtype']) == ('openvino', 'bfloat16')
    dense, refined = figures['results']
    assert dense['gmacs'] is None and refined['stages']['low-resolution pass'] > 0
    assert not figures['other_classes']  # of random weights


@pytest.mark.usefixtures('computes_bfloat16')
def test_benchmark_tells_what_bfloat16_changes(run, tmp_path, segmentor):
    result = run('benchmark', DENSE, '--checkpoints', segmentor, '--shape', 128,
                 256, '--iterations', 1, '--warmup', 1, '--fuse', '--dtype', 'bfloat16', '--out',
                 'b.json')
    assert result.returncode == 0, result.stderr
    changed = json.loads((tmp_path / 'b.json').read_text())['other_classes'][DENSE.stem]
    assert 0 < changed < 0.2 and f'{changed:.2%}' in result.stdout


@pytest.mark.parametrize('computes_bfloat16', [False], indirect=True)
@pytest.mark.usefixtures('computes_bfloat16')
def test_benchmark_of_bfloat16_needs_it(run):
    result = run('benchmark', DENSE, '--fuse', '--dtype', 'bfloat16')
    assert result.returncode == 1 and 'no instructions for it' in result.stderr


@pytest.mark.parametrize(('options', 'message'), [
    (('--dtype', 'bfloat16'), '--backend and --dtype need --fuse'),
    (('--fuse', '--backend', 'openvino', '--mode', 'forward'), 'whole networks, not --mode forwa')])
def test_benchmark_refuses_what_it_cannot_time(start, options, message):
    result = start('benchmark', REFINE, *options)
    assert result.returncode == 2 and message in result.stderr


def test_benchmark_in_several_modes_fused_by_name(run, tmp_path):
    """Parameters are those of the config, not of the folded model; `package::name` is found."""
    name = 'fast_scnn_8xb4-160k_cityscapes-512x1024'
    result = run('benchmark', f'mmseg::fastscnn/{name}.py', '--shape', 128, 256,
                 '--mode', 'forward', 'paper', '--fuse', '--iterations', 1, '--warmup', 1,
                 '--out', 'b.json', '--device', 'cpu')
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'b.json').read_text())
    assert [row['mode'] for row in found['results']] == ['forward', 'paper']
    assert found['results'][0]['gmacs'] == found['results'][1]['gmacs'] > 0
    assert found['parameters'] == {name: 1_399_939}
    assert f'{1_399_939:,}' in result.stdout


def test_benchmark_without_a_gpu_has_no_fp16(run, tmp_path):
    result = run('benchmark', REFINE, '--precision', 'fp16', '--device', 'cpu')
    assert result.returncode == 1
    assert result.stderr.endswith('benchmark.py: --precision fp16 needs a CUDA device, got cpu\n')
