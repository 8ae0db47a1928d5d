"""Tools as a user calls them, in a folder of their own, and weights for them."""
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.tools.in_process import run_tool
from tests.tools.scenes import REFINE


@pytest.fixture
def run(root, tmp_path):
    """Run a tool by its name in the process of the test; like :func:`subprocess.run`."""
    return lambda name, *arguments: run_tool(
        root / 'tools' / f'{name}.py', *arguments, cwd=tmp_path)


@pytest.fixture
def start(root, tmp_path):
    """The same in a process of its own."""
    return lambda name, *arguments: subprocess.run(
        [sys.executable, '-W', 'ignore', str(root / 'tools' / f'{name}.py'), *map(str, arguments)],
        capture_output=True, text=True, cwd=tmp_path)


def demo_model():
    cfg = Config.fromfile(REFINE)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


@pytest.fixture(scope='package')
def segmentor(tmp_path_factory):
    """A checkpoint of the low-resolution segmentor, with logits that vary."""
    model = demo_model().segmentor
    model.decode_head.conv_seg.weight.data.mul_(300)
    path = tmp_path_factory.mktemp('weights') / 'low.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='package')
def refiner(tmp_path_factory):
    """A checkpoint of the whole model, untrained."""
    path = tmp_path_factory.mktemp('weights') / 'refine.pth'
    torch.save(dict(state_dict=demo_model().state_dict()), path)
    return path
