"""The installer: what it checks before it starts, what it records, and what the wheel holds."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope='module')
def installer():
    path = Path(__file__).resolve().parent.parent / 'requirements' / 'install.py'
    spec = importlib.util.spec_from_file_location('mmsparse_install', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    """The second clone takes the wheel of the first; another torch builds its own."""
    monkeypatch.setattr(installer, 'CACHE', tmp_path / 'cache')
    torch = ['cp311-torch2.13.0']
    monkeypatch.setattr(installer.subprocess, 'run',
                        lambda *args, **kwargs: SimpleNamespace(stdout=torch[0]))
    built = []

    def pip(*arguments, **variables):
        assert variables == {'MMCV_WITH_OPS': '1'}
        assert {'--no-build-isolation', '--no-cache-dir', '--no-binary'} <= set(arguments)
        built.append(arguments[-1])
        (Path(arguments[arguments.index('-w') + 1]) / 'mmcv-2.1.0.whl').touch()

    monkeypatch.setattr(environment, 'pip', pip)
    first = installer.mmcv_wheel(environment)
    assert installer.mmcv_wheel(environment) == first
    assert built == ['mmcv==2.1.0']
    torch[0] = 'cp311-torch2.14.0'
    assert installer.mmcv_wheel(environment) != first
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
        installer.mmcv_wheel(environment)
    assert not list((tmp_path / 'cache' / 'wheels').iterdir())


def test_pins_are_complete(installer, root):
    """Exact versions, also of every name on the lists but Triton: torch for CUDA names its own."""
    for stack, layout in installer.STACKS.items():
        lines = (root / 'requirements' / f'{stack}.txt').read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith('#')]
        assert all(re.fullmatch(r'[a-z0-9-]+==[\w.]+', pin) for pin in pins)
        pinned = {pin.split('==')[0] for pin in pins}
        assert len(pinned) == len(pins)
        wanted = {*layout['mm'], *layout['packages'], layout['mmcv'], 'torch', 'pip', 'setuptools'}
        for name in ('runtime', 'tests'):
            text = (root / 'requirements' / f'{name}.txt').read_text()
            wanted |= {line for line in text.splitlines() if line and not line.startswith('#')}
        assert wanted - {'triton'} <= pinned


def test_no_package_host_is_named(root):
    """Where packages come from is the user's pip configuration."""
    for path in [root / 'Makefile', root / 'setup.cfg', root / '.pre-commit-config.yaml',
                 *(root / 'requirements').iterdir()]:
        if path.is_file():
            assert not re.search(r'https?://|--(extra-)?index-url|--find-links', path.read_text())


# ---- The wheel ----


@pytest.fixture(scope='module')
def copied(installer, tmp_path_factory):
    """The sources of the wheel, copied as the installer does."""
    folder = tmp_path_factory.mktemp('sources')
    for file in installer.sources():
        target = folder / file.relative_to(installer.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder


def build(hook, source, target):
    """Call a PEP 517 hook; the file that it made."""
    code = ('import sys, setuptools.build_meta as backend\n'
            f'print(backend.{hook}(sys.argv[1]))')
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(target)], cwd=source,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return target / result.stdout.split()[-1]


def test_wheel_through_an_sdist_is_complete(copied, tmp_path, root):
    """Configs, tools and the index travel through the sdist into the wheel, as mim wants them."""
    with tarfile.open(build('build_sdist', copied, tmp_path)) as tar:
        tar.extractall(tmp_path / 'sdist', filter='data')
    (unpacked,) = (tmp_path / 'sdist').iterdir()
    wheel = zipfile.ZipFile(build('build_wheel', unpacked, tmp_path))
    inside = set(wheel.namelist())
    for folder in ('configs', 'tools'):
        for path in (root / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'mmsparse/.mim/{path.relative_to(root)}' in inside
    assert 'mmsparse/.mim/model-index.yml' in inside
    for ending in ('.py', '.pyi', 'py.typed'):
        for path in (root / 'mmsparse').rglob(f'*{ending}'):
            assert str(path.relative_to(root)) in inside
    tops = {name.split('/')[0] for name in inside}
    assert {name for name in tops if not name.endswith('.dist-info')} == {'mmsparse'}
    assert not any('__pycache__' in name for name in inside)


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

    def make(target):
        result = subprocess.run(['make', target, f'PYTHON={sys.executable}'], cwd=tmp_path,
                                capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    first = make('install')
    assert '[mmsparse] creating .venv' in first and '[mmsparse] mmsparse itself' in first
    assert make('install') == ''
    (tmp_path / 'tools' / 'new.py').touch()
    assert make('install') == '[mmsparse] mmsparse itself (5 s)\n'
    assert 'nothing is broken' in make('doctor')
