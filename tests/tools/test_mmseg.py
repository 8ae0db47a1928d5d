"""mmseg's own tools on our configs."""
import json
import subprocess
import sys
from pathlib import Path

import mmseg

from tests.tools.scenes import REFINE


def mmseg_tool(cwd, name, *arguments):
    """One of mmseg's analysis tools, in which nothing imports mmsparse but the config."""
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
