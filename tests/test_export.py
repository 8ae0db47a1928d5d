"""ONNX files of SwiftNet against the models, in onnxruntime."""
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from mmsparse.engine.export import export_onnx
from tests.models.test_swiftnet_configs import PYR3, R18, build, load


def model(name):
    net = build(load(name)).eval()
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize('name', [R18, PYR3])
def test_the_file_computes_what_the_model_does(tmp_path, name):
    assert export_onnx(model(name), tmp_path / 'm.onnx', (512, 1024), False) < 1e-4


def test_grids_that_do_not_divide_the_size(tmp_path):
    """A stride-32 map of 7x11: 8 and 4 rows of cells that overlap."""
    net = model(R18)
    assert export_onnx(net, tmp_path / 'm.onnx', (210, 330), False) < 1e-4
    assert export_onnx(net, tmp_path / 'c.onnx', (210, 330), True) < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / 'c.onnx'))
    classes, = session.run(None, {'image': np.zeros((1, 3, 210, 330), np.float32)})
    assert classes.dtype == np.int64 and classes.shape == (1, 210, 330)


def run(root, *arguments):
    return subprocess.run([sys.executable, 'tools/export_onnx.py', *map(str, arguments)], cwd=root,
                          capture_output=True, text=True)


def test_the_tool_writes_once(root, tmp_path):
    config = root / 'configs/swiftnet' / f'{R18}.py'
    options = ('--shape', 96, 130, '--out', tmp_path / 'm.onnx')
    result = run(root, config, *options)
    assert result.returncode == 0, result.stderr
    assert 'largest relative difference in onnxruntime' in result.stdout
    again = run(root, config, *options)
    assert again.returncode == 1
    assert again.stderr.endswith('m.onnx exists; --force writes over it\n')


def test_a_refining_model_is_refused(root, tmp_path):
    config = 'configs/sparserefine/sparserefine_fcn-hr16s_1xb2-400_camvid-720x960.py'
    result = run(root, root / config, '--out', tmp_path / 'm.onnx')
    assert result.returncode == 1 and 'no ONNX operators' in result.stderr
