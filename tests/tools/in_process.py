"""A tool run as its command runs it, but in the process of the test.

To start Python and to import the MM packages takes longer than most of what these tests ask for.
That a script finds its neighbors when Python starts it is tested by a process of its own, once for
each tool.
"""
import contextlib
import io
import runpy
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.utils import ManagerMixin

from tests.restoring import loading_restored


@dataclass(frozen=True)
class Done:
    """What :func:`subprocess.run` says of a process."""

    returncode: int
    stdout: str
    stderr: str


def run_tool(script: Path, *arguments: object, cwd: Path, **environment: str) -> Done:
    """Run ``script`` as ``__main__`` with these arguments in the folder ``cwd``.

    Loggers, visualizers, imported neighbors, variables, threads and what was allowed to be loaded
    are afterwards as they were.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    threads, modules = torch.get_num_threads(), set(sys.modules)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(cwd)
        patch.syspath_prepend(str(script.parent))
        patch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
        for name, value in environment.items():
            patch.setenv(name, value)
        stack.enter_context(loading_restored())
        stack.enter_context(instances_restored())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            runpy.run_path(str(script), run_name='__main__')
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                err.write(f'{end.code}\n')
        except Exception:  # a process prints it and ends with 1
            err.write(traceback.format_exc())
            code = 1
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:  # neighbors are found by their bare names
        if Path(getattr(sys.modules[name], '__file__', None) or '').parent == script.parent:
            del sys.modules[name]
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def instances_restored():
    """mmengine keeps loggers, message hubs and visualizers by name: a second run would get those
    of the first, with its folder and its closed output."""
    kinds, queue = [], [ManagerMixin]
    while queue:
        kind = queue.pop()
        queue += kind.__subclasses__()
        kinds.append(kind)
    before = {kind: dict(kind._instance_dict) for kind in kinds}
    for kind in kinds:
        kind._instance_dict.clear()
    try:
        yield
    finally:
        for kind, instances in before.items():
            for instance in kind._instance_dict.values():
                for handler in getattr(instance, 'handlers', ()):
                    handler.close()
            kind._instance_dict.clear()
            kind._instance_dict.update(instances)
