"""Create the environment of this repository; the standard library is all it needs.

``make`` calls it before everything else. Each step is recorded when it is done, with what it was
done for, so that a second call does nothing, an interrupted one goes on where it stopped, and a
change of the sources re-installs mmsparse alone. See docs/install.md.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get('MMSPARSE_CACHE') or Path.home() / '.cache' / 'mmsparse')


class Stack(TypedDict):
    """How one set of MM packages is installed; names are those of distributions."""

    venv: str
    pythons: tuple[tuple[int, int], ...]  # that it is tested with, the newest first
    mmcv: str
    mm: tuple[str, ...]
    packages: tuple[str, ...]
    mmcv_time: str  # of its build, in words


STACKS: dict[str, Stack] = {
    'stock': {
        'venv': '.venv',
        'pythons': ((3, 11), (3, 10)),
        'mmcv': 'mmcv',
        'mm': ('mmengine', 'mmdet', 'mmsegmentation', 'openmim'),
        'packages': ('spconv-cu120', 'cumm-cu120'),
        'mmcv_time': '7 minutes on 2 cores, 27 on slow ones',
    },
    'onedl': {
        'venv': '.venv-onedl',
        'pythons': ((3, 12), (3, 11), (3, 10)),
        'mmcv': 'onedl-mmcv',
        'mm': ('onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'openmim',
               'imaug'),
        'packages': ('spconv-cu126', 'cumm-cu126', 'scikit-image', 'imageio'),
        'mmcv_time': '10 minutes on 2 cores',
    },
}
# What the wheel of mmsparse is made of: a change here re-installs it.
SOURCES = ('mmsparse', 'configs', 'tools', 'model-index.yml', 'setup.py', 'setup.cfg',
           'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')
GIGABYTE = 2**30


class Problem(Exception):
    """Something the user has to mend first; the message is one line and says how."""


# ---- Checks, before anything is changed ---------------------------------------------------------


def python_version(python: str) -> tuple[int, ...] | None:
    """(major, minor) of an interpreter, or None where it does not run (a pyenv shim may not)."""
    command = [python, '-c', 'import sys; print(*sys.version_info[:2])']
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else None


def dotted(version: Sequence[int]) -> str:
    """(3, 11) as 3.11."""
    return '.'.join(map(str, version))


def find_python(wanted: str, pythons: Sequence[tuple[int, int]]) -> str:
    """The interpreter for the environment: ``wanted`` if it fits, else the newest that does."""
    for candidate in (wanted, *(f'python{dotted(version)}' for version in pythons)):
        path = shutil.which(candidate)
        if path and python_version(path) in pythons:
            return path
    found = python_version(wanted)
    raise Problem(
        f'Python {" or ".join(map(dotted, pythons))} is needed (found '
        f'{dotted(found) if found else "none"}): sudo apt-get install python3 python3-venv '
        f'python3-dev, or pass one with make PYTHON=/path/to/python{dotted(pythons[0])}')


def check_python_modules(python: str, builds: bool = True) -> None:
    """A Debian Python cannot make anything without its -venv package, or build without its -dev."""
    code = ('import sysconfig, os, sys\n'
            'try:\n import venv, ensurepip\n'
            'except ImportError: sys.exit(3)\n'
            'header = os.path.join(sysconfig.get_path("include"), "Python.h")\n'
            'sys.exit(0 if os.path.exists(header) else 4)')
    status = subprocess.run([python, '-c', code], capture_output=True).returncode
    name = f'python{dotted(python_version(python) or ())}'
    if status == 3:
        raise Problem(f'{name} has no venv module: sudo apt-get install {name}-venv')
    if status == 4 and builds:
        raise Problem(f"{name} has no Python.h, which mmcv's build needs: sudo apt-get install "
                      f'{name}-dev')


def check_compiler() -> None:
    """mmcv's operators are C++."""
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if not (shutil.which(compiler) or shutil.which('g++')):
        raise Problem(f"no C++ compiler ({compiler}), which mmcv's build needs: "
                      'sudo apt-get install g++')


def check_disk(torch: str) -> None:
    """A CPU torch makes an environment of 2 GB, one with CUDA of about 8."""
    needed = 4 if '+cpu' in torch else 10
    for place in (ROOT, CACHE):
        existing = next(p for p in (place, *place.parents) if p.exists())
        free = shutil.disk_usage(existing).free / GIGABYTE
        if free < needed:
            raise Problem(f'{free:.1f} GB free at {existing}, {needed} GB are needed: free some, '
                          'or use a smaller torch (make TORCH="torch==VERSION+cpu")')


def check_torch(torch: str) -> None:
    """``torch==X``, new enough for numpy 2 and for reading checkpoints as data."""
    match = re.fullmatch(r'torch==(\d+)\.(\d+)\S*', torch)
    if not match:
        raise Problem(f'TORCH="{torch}" is not of the form torch==2.13.0')
    if tuple(map(int, match.groups())) < (2, 6):
        raise Problem(f'{torch} can be tricked into running what a checkpoint contains: choose '
                      'torch==2.6.0 or newer')


# ---- Doing --------------------------------------------------------------------------------------


class Environment:
    """One virtual environment, the record of what was done to it, and its log."""

    def __init__(self, stack: str, path: Path) -> None:
        self.stack = STACKS[stack]
        self.pins = ROOT / 'requirements' / (stack + '.txt')
        self.path = path
        self.python = str(path / 'bin' / 'python')
        self.log = path / 'install.log'
        self.record_path = path / 'install.json'
        try:
            self.record: dict = json.loads(self.record_path.read_text())
        except (OSError, ValueError):
            self.record = {}

    def step(self, name: str, key: str | int | list[str], title: str, action: Callable[[], object]
             ) -> None:
        """Do ``action`` unless it was done for this ``key``; later steps are then due again."""
        if self.record.get(name) == key:
            return
        print('[mmsparse] ' + title, flush=True)
        action()
        done = list(self.record)
        later = done[done.index(name):] if name in done else []
        for other in later:
            del self.record[other]
        self.record[name] = key
        partial = self.record_path.with_suffix('.partial')
        partial.write_text(json.dumps(self.record, indent=1))
        partial.replace(self.record_path)  # never half a record

    def run(self, *command: str, **variables: str) -> None:
        """Run a command into the log, with a sign of life every half minute.

        Where ninja compiles, it tells how many files are done, of how many.
        """
        started = time.monotonic()
        with self.log.open('ab') as log:
            log.write(f'\n$ {" ".join(command)}\n'.encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                                       env={**os.environ, **variables})
            try:
                while True:
                    try:
                        status = process.wait(timeout=30)
                        break
                    except subprocess.TimeoutExpired:
                        seconds = time.monotonic() - started
                        print(f'[mmsparse]   ... {seconds:.0f} s{self.files_done(start)}',
                              flush=True)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status:
            tail = self.log.read_bytes()[start:].decode(errors='replace').splitlines()[-25:]
            print('\n'.join(tail), file=sys.stderr)
            raise Problem(f'a step failed (all of its output: {self.log}); mend the cause and run '
                          'the same command again, it goes on from here')

    def files_done(self, start: int) -> str:
        """What ninja wrote last into the log after the byte ``start``; nothing if it did not."""
        with self.log.open('rb') as log:
            log.seek(start)
            counts = re.findall(rb'^ *\[(\d+)/(\d+)\] ', log.read(), re.M)
        return ', {} of {} files'.format(*map(int, counts[-1])) if counts else ''

    def pip(self, *arguments: str, **variables: str) -> None:
        """Pip in the environment, deaf to settings that would install elsewhere."""
        self.run(self.python, '-m', 'pip', '--disable-pip-version-check', *arguments,
                 PIP_USER='0', PIP_REQUIRE_VIRTUALENV='0', PYTHONPATH='', **variables)

    def pin(self, name: str) -> str:
        """``name==version`` as the constraints file has it."""
        (pin,) = re.findall(rf'^{re.escape(name)}==\S+$', self.pins.read_text(), re.M)
        return pin


def constraints(environment: Environment, torch: str) -> str:
    """The constraints file with the chosen torch, written into the environment."""
    text = re.sub(r'^torch==\S+$', torch, environment.pins.read_text(), flags=re.M)
    path = environment.path / 'constraints.txt'
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def build_mmcv(environment: Environment) -> str:
    """A wheel of mmcv with its operators for this Python and torch, built once and kept.

    pip's own cache would not do: a wheel's name says nothing of the torch it was compiled for.
    ninja compiles on all cores if it is found, and it may be in this environment alone.
    ``MAX_JOBS`` and ``FORCE_CUDA`` are those of torch's and of mmcv's build.
    """
    code = ('import os, sys, torch; gpu = torch.cuda.is_available() or '
            'os.environ.get("FORCE_CUDA") == "1"; print("cp%d%d-torch%s%s" % ('
            '*sys.version_info[:2], torch.__version__, "-gpu" if gpu else ""))')
    answer = subprocess.run([environment.python, '-c', code], capture_output=True, text=True)
    pin = environment.pin(environment.stack['mmcv'])
    key = f'{answer.stdout.strip()}-{pin.replace("==", "-")}-{platform.machine()}'
    folder = CACHE / 'wheels' / key
    for wheel in folder.glob('*.whl'):
        print(f'[mmsparse]   found in {folder}', flush=True)
        return str(wheel)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder.parent), prefix='building-') as building:
        built = Path(building) / 'wheel'
        built.mkdir()
        name = pin.split('==')[0]
        environment.pip(
            'wheel', '--verbose', '--no-deps', '--no-build-isolation', '--no-cache-dir',
            '--no-binary', name, '-w', str(built), pin, MMCV_WITH_OPS='1',
            MAX_JOBS=os.environ.get('MAX_JOBS', str(cores())),
            PATH=os.pathsep.join([str(environment.path / 'bin'), os.environ['PATH']]))
        try:
            built.rename(folder)
        except OSError:  # another clone was faster
            pass
    return str(next(folder.glob('*.whl')))


def download_mmcv(environment: Environment, wheels: str) -> str:
    """The pinned mmcv as a wheel, from a folder or page of wheels and the indexes of pip."""
    folder = environment.path / 'mmcv-wheel'
    shutil.rmtree(folder, ignore_errors=True)
    environment.pip('download', '--no-deps', '--no-cache-dir', '--only-binary', ':all:',
                    '--find-links', wheels, '-d', str(folder),
                    environment.pin(environment.stack['mmcv']))
    return str(next(folder.glob('*.whl')))


# What mmcv imports is not there yet, but its operators load as any library.
LOAD_OPERATORS = """
import ctypes, glob, sys, sysconfig, torch
found = glob.glob(sysconfig.get_path('platlib') + '/mmcv/_ext*.so')
try:
    ctypes.PyDLL(found[0])
except (IndexError, OSError) as error:
    sys.exit(f'{error if found else "it has no operators"}')
"""


def install_mmcv(environment: Environment, wheels: str) -> None:
    """Install mmcv from a wheel that somebody has built, or from source."""
    wheel = download_mmcv(environment, wheels) if wheels else build_mmcv(environment)
    environment.pip('install', '--no-deps', '--force-reinstall', wheel)
    answer = subprocess.run([environment.python, '-c', LOAD_OPERATORS], capture_output=True,
                            text=True)
    if answer.returncode:
        reason = ' '.join(answer.stderr.split())[-300:]
        raise Problem(f'{Path(wheel).name} was not compiled for this torch ({reason}): take the '
                      'wheel for it, or another torch (make TORCH="torch==VERSION"), or build it '
                      '(leave MMCV_WHEELS out)')


def install_mm(environment: Environment, pins: Sequence[str]) -> None:
    """The MM packages around mmcv; then everything compiled must load."""
    environment.pip('install', '--no-deps', '--no-build-isolation', '--no-cache-dir', *pins)
    environment.run(environment.python, '-c',
                    'import mmcv.ops, mmdet.apis, mmseg.apis, spconv.pytorch, mim.cli')


def sources() -> Iterator[Path]:
    """The files of the wheel, sorted."""
    for name in SOURCES:
        path = ROOT / name
        files = sorted(path.rglob('*')) if path.is_dir() else [path]
        yield from (f for f in files if f.is_file() and '__pycache__' not in f.parts)


def source_key() -> str:
    """One hash of what the wheel of mmsparse is made of."""
    total = hashlib.sha256()
    for file in sources():
        total.update(str(file.relative_to(ROOT)).encode() + b'\0' + file.read_bytes() + b'\0')
    return total.hexdigest()


def install_mmsparse(environment: Environment) -> None:
    """Build in a copy, so that no build folder is left here to be picked up later."""
    with tempfile.TemporaryDirectory() as copy:
        for file in sources():
            target = Path(copy) / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        environment.pip('install', '--no-deps', '--no-build-isolation', '--force-reinstall', copy)


def install(stack: str, wanted_torch: str, python: str, wheels: str) -> None:
    """Bring the environment of ``stack`` up to date."""
    layout = STACKS[stack]
    environment = Environment(stack, ROOT / layout['venv'])
    # A torch that was chosen once stays until another is named.
    torch = wanted_torch or environment.record.get('torch') or environment.pin('torch')
    text = re.sub(r'^torch==\S+$', torch, environment.pins.read_text(), flags=re.M)
    lists = {name: (ROOT / 'requirements' / (name + '.txt')).read_text()
             for name in ('runtime', 'tests', 'docs')}
    more = [environment.pin(name) for name in layout['packages']]
    if not {'venv', 'tools', 'torch', 'mmcv', 'mm', 'packages'} <= set(environment.record):
        check_torch(torch)
        python = find_python(python, layout['pythons'])
        check_python_modules(python, builds=not wheels)
        if not wheels:
            check_compiler()
        check_disk(torch)
        print(f'[mmsparse] installing into {environment.path}: about 3 minutes' + (
            '' if wheels else f' and, the first time, {layout["mmcv_time"]} for mmcv'), flush=True)

    def packages() -> None:
        environment.pip('install', '-c', pins, *more, *(a for name in lists for a in (
            '-r', str(ROOT / 'requirements' / (name + '.txt')))))

    environment.path.mkdir(exist_ok=True)
    environment.step('venv', 1, f'creating {environment.path.name} (10 s)',
                     lambda: environment.run(python, '-m', 'venv', str(environment.path)))
    pins = constraints(environment, torch)
    environment.step('tools', text, 'build tools (30 s)', lambda: environment.pip(
        'install', '-c', pins, 'pip', 'setuptools', 'wheel', 'ninja', 'psutil', 'packaging',
        'numpy'))
    environment.step('torch', torch, f'{torch} (1 minute; 5 with CUDA)', lambda: environment.pip(
        'install', '-c', pins, torch))
    mmcv = environment.pin(layout['mmcv'])
    how = f'from {wheels}' if wheels else (
        f'built once, about {layout["mmcv_time"]}; log: {environment.log}')
    environment.step('mmcv', mmcv, f'{mmcv} with its operators ({how})',
                     lambda: install_mmcv(environment, wheels))
    environment.step('packages', [*lists.values(), *more],
                     'what the MM packages, mim, tests and docs import, and spconv (1 minute)',
                     packages)
    mm = [environment.pin(name) for name in layout['mm']]
    environment.step('mm', mm, ', '.join(mm) + ' (30 s)', lambda: install_mm(environment, mm))
    environment.step('mmsparse', source_key(), 'mmsparse itself (5 s)',
                     lambda: install_mmsparse(environment))


def main() -> None:
    """Command line; the interpreter of the environment is not touched when nothing is due."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--stack', choices=sorted(STACKS), default='stock')
    parser.add_argument('--torch', default='', help='torch==VERSION instead of the pinned one')
    parser.add_argument('--mmcv-wheels', default='',
                        help="take mmcv from this folder or page of wheels, as pip's --find-links, "
                             'instead of compiling it')
    parser.add_argument('--python', default='python3', help='the interpreter to build upon')
    arguments = parser.parse_args()
    try:
        install(arguments.stack, arguments.torch.strip(), arguments.python,
                arguments.mmcv_wheels.strip())
    except Problem as problem:
        sys.exit('[mmsparse] ' + str(problem))
    except KeyboardInterrupt:
        sys.exit('[mmsparse] interrupted; the same command goes on from here')


if __name__ == '__main__':
    main()
