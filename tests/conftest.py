"""Settings of the whole suite: checks on, seeds fixed, the checkout imported everywhere."""

import functools
import os
import random
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports mmsparse: its row checks are off by default, and in `make nightly`.
os.environ.setdefault('MMSPARSE_DEBUG', '1')
# Subprocesses of the tests run the checkout too; those that want the wheel clear it.
os.environ['PYTHONPATH'] = str(ROOT)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from tests.environments import load_installer  # noqa: E402
from tests.restoring import loading_restored  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def full_float32():
    """TensorFloat-32 has ten bits: on a GPU it would hide errors, and differ from the CPU."""
    libraries = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [library.allow_tf32 for library in libraries]
    for library in libraries:
        library.allow_tf32 = False
    yield
    for library, value in zip(libraries, before, strict=True):
        library.allow_tf32 = value


@pytest.fixture(autouse=True)
def no_scope():
    """Every test starts without a default scope of MM, whatever set one before it."""
    from mmengine.registry import DefaultScope

    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session', autouse=True)
def metafiles_read_once():
    """For each ``mmseg::`` in a config mmengine reads all metafiles of mmseg, fifty of them, and
    loads ``pkg_resources`` again: most of a second for a config, of which there are hundreds here.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ('mmengine.config.utils.load', 'mmengine.config.config.is_installed'):
            module, function = name.rsplit('.', 1)
            patch.setattr(name, functools.cache(getattr(import_module(module), function)))
        yield


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
    with loading_restored():
        yield


@pytest.fixture
def mmengine_allowed(loading):
    """``allow_mmengine()`` for the time of a test."""
    from mmsparse.checkpoint import allow_mmengine

    allow_mmengine()


@pytest.fixture(params=[True])
def computes_bfloat16(request, monkeypatch):
    """The CPU has instructions for bfloat16, or is taken to have them and is slow; or has none."""
    from mmsparse import precision

    monkeypatch.setattr(precision, 'computes_bfloat16', lambda: request.param)
    precision._warn.cache_clear()


@pytest.fixture(scope='module')
def installer():
    """``requirements/install.py`` as a module."""
    return load_installer()
