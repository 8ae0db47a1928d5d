"""mmseg's own tools on our configs."""
import json
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest

from mmsparse.compat import STOCK, installed_stack
from mmsparse.engine.config import read_config
from tests.tools.scenes import REFINE

TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'analysis_tools'


@pytest.mark.parametrize('batches', [10, pytest.param(200, marks=pytest.mark.slow)])
def test_mmsegs_benchmark(tmp_path, segmentor, batches):
    """A process in which nothing imports mmsparse but the config. It times 200 batches of the test
    set, or fewer with that number changed; these are tiny. On the forks mmengine alone cannot parse
    ``mmseg::``, so there the config is written out whole."""
    text = (TOOLS / 'benchmark.py').read_text()
    assert text.count('total_iters = 200') == 1
    (tmp_path / 'tool.py').write_text(text.replace('total_iters = 200', f'total_iters = {batches}'))
    (tmp_path / 'tiny.py').write_text(
        f"_base_ = '{REFINE}'\n"
        'test_dataloader = dict(num_workers=0, persistent_workers=False,\n'
        f'                       dataset=dict(size=(32, 64), length={batches}))\n'
        f"model = dict(segmentor_checkpoint='{segmentor}')\n")
    if installed_stack() is not STOCK:
        read_config(tmp_path / 'tiny.py').dump(tmp_path / 'tiny.py')
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', 'tool.py', 'tiny.py', 'no_checkpoint.pth',
         '--repeat-times', '1', '--work-dir', str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'Average fps of 1 evaluations' in result.stdout
    assert json.loads(next(tmp_path.glob('fps_*.json')).read_text())['average_fps'] > 0
