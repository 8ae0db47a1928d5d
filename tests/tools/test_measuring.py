"""``calibrate`` and ``benchmark`` as a user calls them, and mmseg's own tools on our configs."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs' / 'sparserefine'
REFINE = CONFIGS / 'sparserefine_fcn-hr16s_1xb1-400_scenes-1024x2048.py'
DENSE = CONFIGS / 'fcn_hr16s_1xb2-400_scenes-1024x2048.py'
SMALL = [f'{split}_dataloader.dataset.{key}' for split in ('val', 'train', 'test')
         for key in ('size=(128,256)', 'length=4')]
SINGLE = [f'{split}_dataloader.{key}' for split in ('val', 'train', 'test')
          for key in ('num_workers=0', 'persistent_workers=False')]


def run(root, cwd, name, *arguments):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', str(root / 'tools' / f'{name}.py'), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    """A checkpoint of the low-resolution segmentor, with logits that vary."""
    from mmengine.registry import MODELS, init_default_scope
    cfg = Config.fromfile(REFINE)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).segmentor
    model.decode_head.conv_seg.weight.data.mul_(300)
    path = tmp_path_factory.mktemp('weights') / 'low.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def test_calibrate_writes_what_a_config_inherits(root, tmp_path, segmentor):
    arguments = [REFINE, segmentor, '--target-recall', '0.8', '--out', 'c.json', '--images', 3,
                 '--cfg-options', *SMALL, *SINGLE]
    result = run(root, tmp_path, 'calibrate', *arguments)
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

    again = run(root, tmp_path, 'calibrate', *arguments)
    assert again.returncode == 1
    assert again.stderr == 'calibrate.py: c.json exists; --force overwrites it\n'


@pytest.mark.parametrize('split, word', [('train', 'training images'), ('test', 'test images')])
def test_calibrate_warns_of_the_wrong_images(root, tmp_path, segmentor, split, word):
    result = run(root, tmp_path, 'calibrate', REFINE, segmentor, '--density', '0.1', '--split',
                 split, '--images', 2, '--cfg-options', *SMALL, *SINGLE)
    assert result.returncode == 0, result.stderr
    assert f'calibrate.py: calibrated on {word}' in result.stderr
    written = tmp_path / 'work_dirs' / REFINE.stem / 'calibration.json'
    assert json.loads(written.read_text())['calibration']['density'] <= 0.1


def test_calibrate_for_a_time_per_image(root, tmp_path, segmentor):
    def calibrate(budget):
        return run(root, tmp_path, 'calibrate', REFINE, segmentor, '--latency-budget', budget,
                   '--images', 2, '--force', '--out', 'c.json', '--cfg-options', *SMALL, *SINGLE)

    plenty = calibrate(1e9)
    assert plenty.returncode == 0, plenty.stderr
    found = json.loads((tmp_path / 'c.json').read_text())['calibration']
    assert found['alpha'] == 0 < found['expected_ms_p50'] <= found['expected_ms_p95']
    assert f'{found["expected_ms_p95"]:.0f} ms (95th percentile)' in plenty.stdout
    nothing = calibrate(0.001)
    assert nothing.returncode == 1 and 'no threshold keeps a budget of 0.001 ms' in nothing.stderr


def test_calibrate_refuses_a_model_without_selector(root, tmp_path, segmentor):
    result = run(root, tmp_path, 'calibrate', DENSE, segmentor, '--density', '0.1')
    assert result.returncode == 1
    assert 'builds EncoderDecoder, not SparseRefineSegmentor' in result.stderr


def test_benchmark_compares_and_writes_json(root, tmp_path):
    result = run(root, tmp_path, 'benchmark', DENSE, REFINE, '--shape', 128, 256, '--density',
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


def test_benchmark_by_openvino_in_bfloat16(root, tmp_path):
    result = run(root, tmp_path, 'benchmark', DENSE, REFINE, '--shape', 128, 256, '--density',
                 '0.1', '--iterations', 1, '--warmup', 1, '--fuse', '--backend', 'openvino',
                 '--dtype', 'bfloat16', '--out', 'b.json')
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / 'b.json').read_text())
    assert (figures['backend'], figures['dtype']) == ('openvino', 'bfloat16')
    dense, refined = figures['results']
    assert dense['gmacs'] is None and refined['stages']['low-resolution pass'] > 0
    assert not figures['other_classes']  # of random weights


def test_benchmark_tells_what_bfloat16_changes(root, tmp_path, segmentor):
    result = run(root, tmp_path, 'benchmark', DENSE, '--checkpoints', segmentor, '--shape', 128,
                 256, '--iterations', 1, '--warmup', 1, '--fuse', '--dtype', 'bfloat16', '--out',
                 'b.json')
    assert result.returncode == 0, result.stderr
    changed = json.loads((tmp_path / 'b.json').read_text())['other_classes'][DENSE.stem]
    assert 0 < changed < 0.2 and f'{changed:.2%}' in result.stdout


@pytest.mark.parametrize(('options', 'message'), [
    (('--dtype', 'bfloat16'), '--backend and --dtype need --fuse'),
    (('--fuse', '--backend', 'openvino', '--mode', 'forward'), 'whole networks, not --mode forwa')])
def test_benchmark_refuses_what_it_cannot_time(root, tmp_path, options, message):
    result = run(root, tmp_path, 'benchmark', REFINE, *options)
    assert result.returncode == 2 and message in result.stderr


def test_benchmark_in_several_modes_fused_by_name(root, tmp_path):
    """Parameters are those of the config, not of the folded model; `package::name` is found."""
    name = 'fast_scnn_8xb4-160k_cityscapes-512x1024'
    result = run(root, tmp_path, 'benchmark', f'mmseg::fastscnn/{name}.py', '--shape', 128, 256,
                 '--mode', 'forward', 'paper', '--fuse', '--iterations', 1, '--warmup', 1,
                 '--out', 'b.json', '--device', 'cpu')
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'b.json').read_text())
    assert [row['mode'] for row in found['results']] == ['forward', 'paper']
    assert found['results'][0]['gmacs'] == found['results'][1]['gmacs'] > 0
    assert found['parameters'] == {name: 1_399_939}
    assert f'{1_399_939:,}' in result.stdout


def test_benchmark_without_a_gpu_has_no_fp16(root, tmp_path):
    result = run(root, tmp_path, 'benchmark', REFINE, '--precision', 'fp16', '--device', 'cpu')
    assert result.returncode == 1
    assert result.stderr.endswith('benchmark.py: --precision fp16 needs a CUDA device, got cpu\n')


# ---- mmseg's own tools on our configs -----------------------------------------------------


def mmseg_tool(cwd, name, *arguments):
    """One of mmseg's analysis tools, in which nothing imports mmsparse but the config."""
    import mmseg
    tool = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'analysis_tools' / f'{name}.py'
    return subprocess.run([sys.executable, '-W', 'ignore', str(tool), *map(str, arguments)],
                          capture_output=True, text=True, cwd=cwd)


def test_mmsegs_benchmark(tmp_path, segmentor):
    """It times 200 batches of the config's test set; these are tiny."""
    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{REFINE}'\n"
        'test_dataloader = dict(num_workers=0, persistent_workers=False,\n'
        '                       dataset=dict(size=(32, 64), length=200))\n'
        f"model = dict(segmentor_checkpoint='{segmentor}')\n")
    result = mmseg_tool(tmp_path, 'benchmark', config, 'no_checkpoint.pth', '--repeat-times', 1,
                        '--work-dir', tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'Average fps of 1 evaluations' in result.stdout
    assert json.loads(next(tmp_path.glob('fps_*.json')).read_text())['average_fps'] > 0


# ---- tools/test.py with several metrics ---------------------------------------------------


@pytest.fixture(scope='module')
def refiner(tmp_path_factory):
    """A checkpoint of the whole model, untrained."""
    from mmengine.registry import MODELS, init_default_scope
    cfg = Config.fromfile(REFINE)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'refine.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


TEST = ['--cfg-options', *SMALL, *SINGLE]


def test_one_test_run_reports_every_metric(root, tmp_path, refiner):
    result = run(root, tmp_path, 'test', REFINE, refiner, '--out', tmp_path / 'maps', *TEST)
    assert result.returncode == 0, result.stderr
    for name in (' mIoU: ', 'low_res/mIoU: ', 'selector/recall: ', 'selector/density: ',
                 'size/small: ', 'size/low_res_small: '):
        assert name in result.stdout + result.stderr, name
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 4


def test_test_time_augmentation_through_the_tool(root, tmp_path, refiner):
    result = run(root, tmp_path, 'test', REFINE, refiner, '--tta', *TEST)
    assert result.returncode == 0, result.stderr
    assert ' mIoU: ' in result.stdout + result.stderr
    assert 'selector/' not in result.stdout + result.stderr


def test_the_gpu_check_runs_where_it_can(root, tmp_path):
    """On the CPU, small: the way to the table, not the figures in it."""
    result = run(root, tmp_path, 'gpu_check', '--device', 'cpu', '--precision', 'fp32', '--shape',
                 128, 256, '--batch-size', 1, '--iterations', 1, '--no-tests', '--baselines',
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
def test_the_gpu_check_says_that_there_is_no_gpu(root, tmp_path):
    result = run(root, tmp_path, 'gpu_check')
    assert result.returncode == 1 and result.stderr.startswith('gpu_check.py: no CUDA device here')


@pytest.mark.slow
def test_bench_writes_ratios_and_sets_them_beside_the_committed(root, tmp_path):
    """Small: the way to the figures, not the figures."""
    out = tmp_path / 'work_dirs/bench/summary.json'
    small = ('--shape', 128, 256, '--iterations', 1)
    result = run(root, tmp_path, 'bench', *small, '--only', 'unet_5', 'hrnet', '--committed', 'no')
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

    again = run(root, tmp_path, 'bench', *small, '--only', 'unet_6', '--committed', out)
    assert again.returncode == 0, again.stderr
    later = json.loads(out.read_text())
    assert later['e2e_hrnet'] == found['e2e_hrnet'] and later['unet_speedup_6'] > 0
    line = next(x for x in again.stdout.splitlines() if 'e2e_hrnet' in x)
    assert line.count(f'{found["e2e_hrnet"]:.2f}') == 2

    plots = run(root, tmp_path, 'bench_plots', '--only', 'break_even', '--summary', out, '--shares',
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


def test_plots_need_a_summary(root, tmp_path):
    result = run(root, tmp_path, 'bench_plots', '--summary', tmp_path / 'none.json')
    assert result.returncode == 1 and 'none.json does not exist' in result.stderr
