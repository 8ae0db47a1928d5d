"""Settings of the whole suite: checks on, seeds fixed, the checkout imported everywhere."""

import os
import random
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports mmsparse: its row checks are off by default.
os.environ['MMSPARSE_DEBUG'] = '1'
# Subprocesses of the tests run the checkout too; those that want the wheel clear it.
os.environ['PYTHONPATH'] = str(ROOT)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_scope():
    """Every test starts without a default scope of MM, whatever set one before it."""
    from mmengine.registry import DefaultScope

    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def root() -> Path:
    """The root of the checkout."""
    return ROOT


def pytest_collection_modifyitems(items: list) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))


@pytest.fixture
def loading():
    """What a test, or a tool in its process, sets for loading checkpoints ends with it."""
    from mmengine.runner.checkpoint import CheckpointLoader

    kinds, schemes = torch.serialization.get_safe_globals(), CheckpointLoader._schemes.copy()
    with mock.patch.dict(os.environ):
        yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(kinds)
    CheckpointLoader._schemes = schemes


@pytest.fixture
def mmengine_allowed(loading):
    """``allow_mmengine()`` for the time of a test."""
    from mmsparse.checkpoint import allow_mmengine

    allow_mmengine()
