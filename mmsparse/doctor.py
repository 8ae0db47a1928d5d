"""``python -m mmsparse.doctor``: what is installed, and which known breakages this machine has.

It needs nothing but the standard library, so that it also runs where something is missing.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from mmsparse import compat
from mmsparse.version import __version__

OK, NOTE, BROKEN = 'ok', 'note', 'broken'


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and the command that mends it."""

    name: str
    state: str
    found: str
    remedy: str = ''


def _check(name: str, good: bool, found: str, remedy: str, otherwise: str = BROKEN) -> Finding:
    return Finding(name, OK, found) if good else Finding(name, otherwise, found, remedy)


def _release(version: str | None) -> tuple[int, ...]:
    """Leading numbers of a version; () where there is none."""
    numbers = []
    for part in (version or '').split('+')[0].split('.'):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _try_import(module: str) -> subprocess.Popen:
    """Import a module in a process of its own: a library of another ABI can end it."""
    command = [sys.executable, '-W', 'ignore', '-c', f'import {module}']
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _import_error(process: subprocess.Popen) -> str:
    """The last line of what went wrong; empty where the import worked."""
    _, errors = process.communicate()
    if process.returncode == 0:
        return ''
    return (errors.strip().splitlines() or [f'it died with status {process.returncode}'])[-1]


def check_stack() -> Iterator[Finding]:
    """One complete stack, in its tested versions, on a Python it was tested with."""
    try:
        stack = compat.installed_stack()
    except compat.IncompatibleStackError as error:
        yield Finding('stack', BROKEN, str(error).split(': ')[0], str(error).split(': ', 1)[-1])
        return
    yield Finding('stack', OK, stack.name)
    for distribution, tested in stack.packages.values():
        version = compat.installed_version(distribution)
        yield _check(distribution, version == tested, version or 'missing',
                     f'tested with {tested}: pip install --no-deps {distribution}=={tested}', NOTE)
    python = '.'.join(map(str, sys.version_info[:2]))
    tested_pythons = ', '.join('.'.join(map(str, v)) for v in stack.pythons)
    yield _check('Python', sys.version_info[:2] in stack.pythons, platform.python_version(),
                 f'the stack is tested with {tested_pythons}, not {python}', NOTE)


def check_ground() -> Iterator[Finding]:
    """Packages around the stack that are known to break it."""
    setuptools = compat.installed_version('setuptools')
    yield _check('setuptools < 82', importlib.util.find_spec('pkg_resources') is not None,
                 setuptools or 'missing', 'without pkg_resources neither mmengine, mim nor the '
                 'mmcv build works: pip install "setuptools<81"')
    openxlab = compat.installed_version('openxlab')
    yield _check('no openxlab', openxlab is None, openxlab or 'none',
                 'it pins setuptools to a version torch cannot use: pip uninstall -y openxlab && '
                 'pip install "setuptools<81"')
    missing = [name for name in ('ftfy', 'regex') if not compat.installed_version(name)]
    yield _check('ftfy and regex', not missing, f'missing: {", ".join(missing)}' if missing
                 else 'installed', 'mmseg imports them without asking for them: pip install '
                 + ' '.join(missing))
    opencv = {name: compat.installed_version(name)
              for name in ('opencv-python', 'opencv-python-headless')}
    found = ', '.join(f'{name} {version}' for name, version in opencv.items() if version)
    yield _check('OpenCV 4', any(v and _release(v)[0] == 4 for v in opencv.values())
                 and not any(_release(v)[:1] > (4,) for v in opencv.values()), found or 'missing',
                 'tested with 4.12: pip uninstall -y opencv-python; pip install '
                 '--force-reinstall --no-deps opencv-python-headless==4.12.0.88', NOTE)
    lite = compat.installed_version('mmcv-lite')
    yield _check('no mmcv-lite', lite is None, lite or 'none',
                 'it has no operators and hides those of mmcv: pip uninstall -y mmcv-lite, then '
                 'install mmcv again')
    try:
        files = metadata.files('mmsparse') or []
        inside = any(str(file).endswith('.mim/model-index.yml') for file in files)
        yield _check('mmsparse for mim', inside, f'{__version__}, wheel' if inside
                     else f'{__version__}, editable', 'mim reads its files from a wheel only: '
                     'pip install --no-deps --no-build-isolation .', NOTE)
    except metadata.PackageNotFoundError:
        yield Finding('mmsparse for mim', NOTE, 'a checkout, not installed',
                      'only mim needs it: pip install --no-deps --no-build-isolation .')


def check_environment() -> Iterator[Finding]:
    """A setting that undoes the safe loading of checkpoints."""
    name = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
    value = os.environ.get(name)
    yield _check(name, not value, value or 'not set', 'not needed here, and elsewhere it runs '
                 f'whatever a checkpoint contains: unset {name}', NOTE)


def _mmcv() -> str:
    """``name==version`` of the mmcv of the installed stack; the stock one where there is none."""
    found = [stack for stack in compat.STACKS
             if compat.installed_version(stack.packages['mmcv'][0])] or [compat.STOCK]
    return '=='.join(found[0].packages['mmcv'])


def check_compiled() -> Iterator[Finding]:
    """mmcv's operators and spconv, as files and as libraries that load."""
    wheel = compat.spconv_wheel()
    mmcv = _try_import('mmcv.ops')
    spconv = _try_import(f'{wheel.module}.pytorch') if wheel.usable else None
    error = _import_error(mmcv)
    yield _check('mmcv operators', not error, error or 'they load',
                 'build them for this torch: MMCV_WITH_OPS=1 pip install --force-reinstall '
                 f'--no-deps --no-cache-dir --no-build-isolation {_mmcv()}')
    if spconv is None:
        yield Finding('sparse engine', BROKEN, f'{wheel.distribution or "none"} '
                      f'{wheel.version or ""}'.strip(), wheel.reason)
        return
    error = _import_error(spconv)
    name = f'{wheel.distribution} {wheel.version}'
    yield _check('sparse engine', not error, f'{name}: {error or wheel.reason}',
                 f'install it again: {compat.spconv_command()}')
    cumm = compat.installed_version('cumm-cu120')
    yield _check('cumm-cu120 < 0.5', cumm is None or _release(cumm) < (0, 5), cumm or 'none',
                 'spconv-cu120 was built against an older one: pip install "cumm-cu120<0.5"')


def check_torch() -> Iterator[Finding]:
    """torch, its arrays, and whether it and spconv have kernels for each GPU."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding('torch', BROKEN, str(error), 'pip install torch==2.13.0')
        return
    yield _check('torch', _release(torch.__version__) >= (2, 6), torch.__version__,
                 'an older one can be tricked into running what a checkpoint contains: pip install '
                 'torch==2.13.0')
    try:
        torch.zeros(1).numpy()
        yield Finding('torch with numpy', OK, compat.installed_version('numpy') or '')
    except RuntimeError as error:
        yield Finding('torch with numpy', BROKEN, str(error),
                      'this torch was built for numpy 1: pip install torch==2.13.0')
    if not torch.cuda.is_available():
        yield Finding('GPU', OK, 'none: everything runs on the CPU')
        return
    kernels = torch.cuda.get_arch_list()
    low, high = compat.SPCONV_CAPABILITIES
    triton = compat.spconv_wheel().module == 'spconv_triton'
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        name = f'{torch.cuda.get_device_name(index)}, sm_{capability[0]}{capability[1]}'
        # A binary for sm_80 also runs on sm_86: same major, lower or equal minor.
        fits = any(arch.startswith('sm_') and arch[3:].isdigit()
                   and divmod(int(arch[3:]), 10)[0] == capability[0]
                   and divmod(int(arch[3:]), 10)[1] <= capability[1] for arch in kernels)
        yield _check(f'GPU {index} and torch', fits, name, f'this torch has {" ".join(kernels)}: '
                     'install one that names this GPU')
        yield _check(f'GPU {index} and spconv', triton or low <= capability <= high, name,
                     'the spconv wheels have kernels for sm_60 to sm_90 only: '
                     f'{compat.TRITON_COMMAND}')


def examine() -> list[Finding]:
    """Every check, in the order of the report."""
    return [*check_torch(), *check_stack(), *check_compiled(), *check_ground(),
            *check_environment()]


def report(findings: list[Finding]) -> None:
    """A table where rich is installed, plain lines where it is not."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for finding in findings:
            print(f'{finding.state:7} {finding.name}: {finding.found}  {finding.remedy}'.rstrip())
        return
    color = {OK: 'green', NOTE: 'yellow', BROKEN: 'bold red'}
    table = Table(title=f'mmsparse {__version__}', expand=True)
    table.add_column('state', no_wrap=True)
    table.add_column('what', no_wrap=True)
    table.add_column('found', ratio=1)
    for finding in findings:
        table.add_row(Text(finding.state, style=color[finding.state]), Text(finding.name),
                      Text(finding.found))
    console = Console()
    console.print(table)
    for finding in findings:  # outside the table, so that a command can be copied whole
        if finding.remedy:
            console.print(Text(f'{finding.state}: {finding.name}: ', color[finding.state]),
                          Text(finding.remedy), sep='', soft_wrap=True)


def main() -> int:
    """Print the report; 1 if something is broken, else 0."""
    findings = examine()
    report(findings)
    broken = [finding for finding in findings if finding.state == BROKEN]
    print(f'{len(broken)} broken' if broken else 'nothing is broken')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
