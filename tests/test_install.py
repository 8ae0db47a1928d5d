"""The installer: what it checks before it starts, what it records, and what the wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.environments import bare_environment


def one_line(problem):
    text = str(problem.value)
    assert '\n' not in text
    return text


# ---- Checks ----


def test_fitting_python_is_taken(installer):
    version = sys.version_info[:2]
    assert installer.find_python(sys.executable, (version,)) == sys.executable


def test_unfit_python_is_named(installer, monkeypatch):
    monkeypatch.setattr(installer, 'python_version', lambda path: (3, 8))
    with pytest.raises(installer.Problem) as problem:
        installer.find_python('python3', ((3, 11), (3, 10)))
    text = one_line(problem)
    assert '3.11 or 3.10' in text and 'found 3.8' in text and 'PYTHON=' in text


def test_other_python_is_found(installer, monkeypatch):
    """python3 is too new, python3.10 is a shim that does not run, python3.11 is there."""
    versions = {'python3': (3, 13), 'python3.11': (3, 11), 'python3.10': None}
    monkeypatch.setattr(installer.shutil, 'which', lambda name: name)
    monkeypatch.setattr(installer, 'python_version', versions.get)
    assert installer.find_python('python3', ((3, 11), (3, 10))) == 'python3.11'


@pytest.mark.parametrize('status, remedy', [(3, '-venv'), (4, '-dev')])
def test_python_without_modules(installer, monkeypatch, status, remedy):
    monkeypatch.setattr(installer.subprocess, 'run',
                        lambda *args, **kwargs: SimpleNamespace(returncode=status))
    monkeypatch.setattr(installer, 'python_version', lambda path: (3, 11))
    with pytest.raises(installer.Problem) as problem:
        installer.check_python_modules('python3')
    assert f'apt-get install python3.11{remedy}' in one_line(problem)


def test_no_compiler(installer, monkeypatch):
    monkeypatch.setattr(installer.shutil, 'which', lambda name: None)
    with pytest.raises(installer.Problem) as problem:
        installer.check_compiler()
    assert 'apt-get install g++' in one_line(problem)


def test_full_disk(installer, monkeypatch):
    free = SimpleNamespace(free=5 * installer.GIGABYTE)
    monkeypatch.setattr(installer.shutil, 'disk_usage', lambda path: free)
    installer.check_disk('torch==2.13.0+cpu')
    with pytest.raises(installer.Problem) as problem:
        installer.check_disk('torch==2.13.0')
    assert re.search(r'5\.0 GB free at /.*10 GB are needed', one_line(problem))


@pytest.mark.parametrize('torch, message', [('2.13', 'not of the form'), ('torch>=2', 'form'),
                                            ('torch==2.5.1', '2.6.0 or newer')])
def test_unusable_torch(installer, torch, message):
    with pytest.raises(installer.Problem, match=message):
        installer.check_torch(torch)
    installer.check_torch('torch==2.13.0+cpu')


@pytest.mark.parametrize('variable, value', [('PYTHON', '/no/such/python'), ('TORCH', 'nonsense'),
                                             ('STACK', 'other')])
def test_make_stops_before_it_starts(root, tmp_path, variable, value):
    """Through make, in a clone: an error, no traceback, no environment."""
    for name in ('Makefile', 'requirements'):
        source = root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    result = subprocess.run(['make', 'test', f'{variable}={value}'], cwd=tmp_path,
                            capture_output=True, text=True)
    assert result.returncode != 0
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / '.venv').exists()


# ---- Steps ----


@pytest.fixture
def environment(installer, tmp_path):
    return installer.Environment('stock', tmp_path)


def steps(environment, keys, fail=()):
    """Run the steps of ``keys``; the names of those that did something."""
    done = []

    def action(name):
        if name in fail:
            raise RuntimeError(name)
        done.append(name)

    for name, key in keys.items():
        environment.step(name, key, name, lambda name=name: action(name))
    return done


def test_second_call_does_nothing(installer, environment, tmp_path):
    keys = {'a': 1, 'b': 'x', 'c': ['y']}
    assert steps(environment, keys) == ['a', 'b', 'c']
    assert steps(installer.Environment('stock', tmp_path), keys) == []


def test_interrupted_install_goes_on_where_it_stopped(installer, environment, tmp_path):
    keys = {'a': 1, 'b': 2, 'c': 3}
    with pytest.raises(RuntimeError):
        steps(environment, keys, fail=['b'])
    assert steps(installer.Environment('stock', tmp_path), keys) == ['b', 'c']


def test_change_redoes_what_follows(environment):
    assert steps(environment, {'a': 1, 'b': 2, 'c': 3}) == ['a', 'b', 'c']
    assert steps(environment, {'a': 1, 'b': 9, 'c': 3}) == ['b', 'c']
    assert steps(environment, {'a': 1, 'b': 9, 'c': 4}) == ['c']


def test_failing_command_shows_its_end(installer, environment, capsys):
    with pytest.raises(installer.Problem, match='install.log'):
        environment.run(sys.executable, '-c', 'print("the cause"); raise SystemExit(3)')
    assert 'the cause' in capsys.readouterr().err


def test_chosen_torch_replaces_the_pin(installer, environment):
    text = Path(installer.constraints(environment, 'torch==2.9.1')).read_text()
    assert 'torch==2.9.1\n' in text
    assert text.replace('torch==2.9.1', environment.pin('torch')) == environment.pins.read_text()


def test_mmcv_is_built_once_per_python_and_torch(installer, environment, monkeypatch, tmp_path):
    """The second clone takes the wheel of the first; another torch builds its own. All cores
    compile, by the environment's ninja."""
    monkeypatch.delenv('MAX_JOBS', raising=False)
    monkeypatch.setattr(installer, 'CACHE', tmp_path / 'cache')
    torch = ['cp311-torch2.13.0']
    monkeypatch.setattr(installer.subprocess, 'run',
                        lambda *args, **kwargs: SimpleNamespace(stdout=torch[0]))
    built = []

    def pip(*arguments, **variables):
        assert variables['MMCV_WITH_OPS'] == '1'
        assert int(variables['MAX_JOBS']) == len(os.sched_getaffinity(0))
        assert variables['PATH'].split(os.pathsep)[0] == str(environment.path / 'bin')
        # verbose: otherwise pip keeps the output, and with it how many files are done, to itself
        assert {'--no-build-isolation', '--no-cache-dir', '--no-binary', '--verbose'} <= set(
            arguments)
        built.append(arguments[-1])
        (Path(arguments[arguments.index('-w') + 1]) / 'mmcv-2.1.0.whl').touch()

    monkeypatch.setattr(environment, 'pip', pip)
    first = installer.build_mmcv(environment)
    assert installer.build_mmcv(environment) == first
    assert built == ['mmcv==2.1.0']
    torch[0] = 'cp311-torch2.14.0'
    assert installer.build_mmcv(environment) != first
    assert len(built) == 2
    assert not list((tmp_path / 'cache' / 'wheels').glob('building-*'))


def test_failed_build_leaves_no_wheel(installer, environment, monkeypatch, tmp_path):
    monkeypatch.setattr(installer, 'CACHE', tmp_path / 'cache')
    monkeypatch.setattr(installer.subprocess, 'run',
                        lambda *args, **kwargs: SimpleNamespace(stdout='key'))

    def pip(*arguments, **variables):
        raise installer.Problem('compiler error')

    monkeypatch.setattr(environment, 'pip', pip)
    with pytest.raises(installer.Problem):
        installer.build_mmcv(environment)
    assert not list((tmp_path / 'cache' / 'wheels').iterdir())


def test_the_build_says_how_many_files_are_done(environment, monkeypatch, capsys):
    """As ninja counts them in pip's verbose output, of this command alone."""
    environment.log.write_text('  [90/90] c++ of another command\n')
    real = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, 'wait', lambda process, timeout=None: real(
        process, timeout and timeout / 30))
    script = ('import time\nfor n in (3, 4):\n'
              '    print(f"  [{n}/77] c++ -c x[1/2].cpp\\n  a warning", flush=True)\n'
              'time.sleep(3)')
    environment.run(sys.executable, '-c', script)
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'\[mmsparse\]   \.\.\. \d+ s, 4 of 77 files', told[-1])
    environment.run(sys.executable, '-c', 'import time; time.sleep(3)')
    assert re.fullmatch(r'\[mmsparse\]   \.\.\. \d+ s', capsys.readouterr().out.splitlines()[-1])


# ---- mmcv from a wheel ----


def write_wheel(folder, name, version, files=()):
    """A wheel that pip takes; its platform is any."""
    stem = f'{name.replace("-", "_")}-{version}'
    info = f'{stem}.dist-info'
    with zipfile.ZipFile(folder / f'{stem}-py3-none-any.whl', 'w') as wheel:
        for path, content in files:
            wheel.writestr(path, content)
        wheel.writestr(f'{info}/METADATA',
                       f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        wheel.writestr(f'{info}/WHEEL',
                       'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', '')


@pytest.fixture
def bare(installer, tmp_path):
    """An environment that sees this one's packages, and has none of its own."""
    return bare_environment(installer, tmp_path / 'bare')


def test_mmcv_comes_from_a_folder_of_wheels(installer, bare, tmp_path):
    """The pinned version, never a source; nothing is compiled."""
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    write_wheel(wheels, 'mmcv', '2.0.0')
    with pytest.raises(installer.Problem):
        installer.download_mmcv(bare, str(wheels))
    write_wheel(wheels, 'mmcv', '2.1.0')
    assert Path(installer.download_mmcv(bare, str(wheels))).name == 'mmcv-2.1.0-py3-none-any.whl'


@pytest.mark.parametrize(('files', 'reason'), [
    ([], 'it has no operators'), ([('mmcv/_ext.so', 'of another torch')], '_ext.so: .*')])
def test_a_wheel_for_another_torch_is_noticed(installer, bare, tmp_path, files, reason):
    """Before anything is installed on top of it."""
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    write_wheel(wheels, 'mmcv', '2.1.0', files)
    with pytest.raises(installer.Problem, match=rf'not compiled for this torch \(.*{reason}\)'):
        installer.install_mmcv(bare, str(wheels))


def test_the_operators_of_this_environment_load(installer):
    assert subprocess.run([sys.executable, '-c', installer.LOAD_OPERATORS]).returncode == 0


def test_a_wheel_needs_no_compiler(installer, monkeypatch, tmp_path):
    """Neither it nor Python's headers are asked for."""
    asked = []
    monkeypatch.setattr(installer, 'find_python', lambda *_: sys.executable)
    monkeypatch.setattr(installer, 'check_disk', lambda torch: None)
    monkeypatch.setattr(installer, 'check_compiler', lambda: asked.append('compiler'))
    monkeypatch.setattr(installer, 'check_python_modules',
                        lambda python, builds: asked.append(f'headers {builds}'))
    monkeypatch.setattr(installer.Environment, 'step', lambda *_: None)
    monkeypatch.setattr(installer, 'constraints', lambda *_: '')
    monkeypatch.setitem(installer.STACKS['stock'], 'venv', str(tmp_path / 'venv'))
    installer.install('stock', '', 'python3', 'wheels')
    assert asked == ['headers False']
    asked.clear()
    installer.install('stock', '', 'python3', '')
    assert asked == ['headers True', 'compiler']


def test_mmseg_needs_the_operators():
    """Why mmcv-lite is not enough (docs/install.md): without its compiled module mmseg is not even
    imported."""
    code = 'import sys; sys.modules["mmcv._ext"] = None\nimport mmseg.models'
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True,
                            text=True)
    assert result.returncode and 'mmcv._ext' in result.stderr.splitlines()[-1]


# Sources alone; the second and third are pure Python.
SOURCES = {'stock': ('mmcv',), 'onedl': ('onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')}


@pytest.mark.slow
@pytest.mark.parametrize(('stack', 'python'), [
    ('stock', '3.10'), ('stock', '3.11'), ('onedl', '3.10'), ('onedl', '3.11'), ('onedl', '3.12')])
def test_all_but_mmcv_need_no_compiler(installer, tmp_path, stack, python):
    """A dry run of pip over the pins; it asks the indexes of this machine's pip."""
    lines = (installer.ROOT / 'requirements' / f'{stack}.txt').read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith('#')
            and line.split('==')[0] not in SOURCES[stack]]
    result = subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--dry-run', '--ignore-installed', '--no-deps',
         '--only-binary', ':all:', '--python-version', python, '--target', str(tmp_path), *pins],
        capture_output=True, text=True)
    if f'No matching distribution found for {pins[0]}' in result.stderr:
        pytest.skip('no package index can be reached')
    assert result.returncode == 0, result.stderr[-2000:]


def test_pins_are_complete(installer, root):
    """Exact versions, also of every name on the lists but Triton: torch for CUDA names its own."""
    for stack, layout in installer.STACKS.items():
        lines = (root / 'requirements' / f'{stack}.txt').read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith('#')]
        assert all(re.fullmatch(r'[a-z0-9-]+==[\w.]+', pin) for pin in pins)
        pinned = {pin.split('==')[0] for pin in pins}
        assert len(pinned) == len(pins)
        wanted = {*layout['mm'], *layout['packages'], layout['mmcv'], 'torch', 'pip', 'setuptools'}
        for name in ('runtime', 'tests', 'docs'):
            text = (root / 'requirements' / f'{name}.txt').read_text()
            wanted |= {line for line in text.splitlines() if line and not line.startswith('#')}
        assert wanted - {'triton'} <= pinned


def test_no_package_host_is_named(root):
    """Where packages come from is the user's pip configuration."""
    for path in [root / 'Makefile', root / 'setup.cfg', root / '.pre-commit-config.yaml',
                 *(root / 'requirements').iterdir()]:
        if path.is_file():
            assert not re.search(
                r'https?://|--(extra-)?index-url|--find-links[= ]\w', path.read_text())


# ---- mmsparse itself ----


def test_every_source_changes_the_key(installer, tmp_path, monkeypatch):
    monkeypatch.setattr(installer, 'ROOT', tmp_path)
    (tmp_path / 'mmsparse').mkdir()
    (tmp_path / 'mmsparse' / 'a.py').write_text('a')
    before = installer.source_key()
    assert installer.source_key() == before
    (tmp_path / 'mmsparse' / 'a.py').write_text('b')
    after = installer.source_key()
    (tmp_path / 'mmsparse' / '__pycache__').mkdir()
    (tmp_path / 'mmsparse' / '__pycache__' / 'a.pyc').write_text('cache')
    assert before != after == installer.source_key()
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'a.py').write_text('a')
    assert installer.source_key() != after


# ---- Continuous integration ----


@pytest.mark.parametrize('status', [0, 1])
@pytest.mark.parametrize('data', [False, True])
def test_ci_runs_the_tests_and_tells_the_truth(root, tmp_path, status, data):
    """The exit code is that of ``make test``; the data folder is found where there is one."""
    clone = tmp_path / 'clone'
    (clone / '.ci').mkdir(parents=True)
    shutil.copy(root / '.ci' / 'run', clone / '.ci' / 'run')
    (clone / 'Makefile').write_text(f'test:\n\t@echo "data=$$MMSPARSE_DATA"; exit {status}\n')
    folder = tmp_path / 'shared' / 'data'
    if data:
        folder.mkdir(parents=True)
    result = subprocess.run([str(clone / '.ci' / 'run')], capture_output=True, text=True,
                            cwd=tmp_path, env={'PATH': '/usr/bin:/bin'})
    assert (result.returncode == 0) == (status == 0)
    assert result.stdout == f'data={folder if data else ""}\n'


def test_docs_lint_finds_problems(root, tmp_path):
    (tmp_path / '.ci').mkdir()
    shutil.copy(root / '.ci' / 'lint_docs.py', tmp_path / '.ci')
    good = '# A title\n\n[here](#a-title) [file](.ci/lint_docs.py)\n\n```bash\n[not](a-link)\n```\n'
    (tmp_path / 'page.md').write_text(good)
    command = [sys.executable, str(tmp_path / '.ci' / 'lint_docs.py')]
    assert subprocess.run(command).returncode == 0
    bad = '[a](missing.md)\n[b](#nothing)\nspace \n```\ncode\n'
    (tmp_path / 'page.md').write_text(bad)
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert [line.split(': ')[0] for line in result.stdout.splitlines()] == [
        'page.md:1', 'page.md:2', 'page.md:3', 'page.md:4', 'page.md']


@pytest.mark.slow
def test_fresh_clone(installer, tmp_path):
    """``make install`` from nothing, then nothing to do, then mmsparse alone after a change.

    The wheel of mmcv comes from the cache where there is one; otherwise this takes minutes more.
    """
    for name in ('Makefile', 'requirements', *installer.SOURCES):
        source = installer.ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, tmp_path / name)

    # as from a shell, also if make runs the tests: a make in a make says where it is
    shell = {name: value for name, value in os.environ.items()
             if name not in ('MAKEFLAGS', 'MAKELEVEL', 'MFLAGS')}

    def make(target):
        result = subprocess.run(['make', target, f'PYTHON={sys.executable}'], cwd=tmp_path,
                                env=shell, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    first = make('install')
    assert '[mmsparse] creating .venv' in first and '[mmsparse] mmsparse itself' in first
    assert make('install') == ''
    (tmp_path / 'tools' / 'new.py').touch()
    assert make('install') == '[mmsparse] mmsparse itself (5 s)\n'
    assert 'nothing is broken' in make('doctor')
