"""`tools/demo.py`: a run of seconds that checks what it writes, and the full one (slow)."""

import json

import cv2
import pytest

KEYS = {f'{figure}_{model}' for figure in ('miou', 'small_iou', 'ms')
        for model in ('low', 'refined', 'dense')} | {'density', 'images'}


def test_quick_demo_writes_table_summary_and_pictures(start, tmp_path):
    done = start('demo', '--quick', '--images', 2, '--work-dir', tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ('mIoU', 'small', 'Low resolution', 'SparseRefine', 'Dense', '2 held-out scenes'):
        assert text in done.stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert set(summary) == KEYS
    assert summary['images'] == 2
    assert 0 <= summary['density'] <= 1
    for key, value in summary.items():
        if key.startswith('ms_'):
            assert value > 0
        elif 'iou' in key:
            assert 0 <= value <= 100
    for name in ('scene_0', 'scene_0_detail', 'scene_1', 'scene_1_detail'):
        assert cv2.imread(str(tmp_path / f'{name}.png')).shape[1] > 1000
    log = (tmp_path / 'console.log').read_text()
    assert 'Iter(train)' not in done.stdout and 'mmengine' in log


def test_number_of_images_is_checked(start, tmp_path):
    done = start('demo', '--images', 0, '--work-dir', tmp_path)
    assert done.returncode == 2 and '--images must be at least 1, got 0' in done.stderr


@pytest.mark.slow
def test_full_demo_keeps_its_two_promises(start, tmp_path):
    """Refined is better than low resolution, also on small classes, and faster than dense."""
    done = start('demo', '--work-dir', tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['miou_refined'] > summary['miou_low'] + 2
    assert summary['small_iou_refined'] > summary['small_iou_low'] + 5
    assert summary['ms_refined'] < 0.9 * summary['ms_dense']
    assert summary['density'] < 0.25
