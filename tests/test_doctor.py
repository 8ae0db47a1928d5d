"""The report names each known breakage with the command that mends it, and never crashes."""

import subprocess
import sys

import pytest
import torch

from mmsparse import compat, doctor


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture
def versions(monkeypatch):
    """Change what single distributions seem to be."""
    changed = {}
    real = compat.installed_version
    monkeypatch.setattr(compat, 'installed_version',
                        lambda name: changed[name] if name in changed else real(name))
    return changed


def test_whole_report(root):
    """As a user runs it: every part is there, and this environment is in order."""
    result = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'mmsparse.doctor'],
                            capture_output=True, text=True, cwd=root)
    for part in ('torch', 'mmengine', 'sparse engine', 'mmcv operators', 'setuptools', 'GPU'):
        assert part in result.stdout
    assert ('nothing is broken' in result.stdout) == (result.returncode == 0)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('distribution, version, name, remedy', [
    ('openxlab', '0.1.3', 'no openxlab', 'pip uninstall -y openxlab'),
    ('ftfy', None, 'ftfy and regex', 'pip install ftfy'),
    ('mmcv-lite', '2.1.0', 'no mmcv-lite', 'pip uninstall -y mmcv-lite'),
])
def test_broken_package(versions, distribution, version, name, remedy):
    versions[distribution] = version
    finding = by_name(doctor.check_ground())[name]
    assert finding.state == doctor.BROKEN
    assert remedy in finding.remedy


def test_opencv_5_is_a_note(versions):
    versions['opencv-python'] = '5.0.0.93'
    finding = by_name(doctor.check_ground())['OpenCV 4']
    assert finding.state == doctor.NOTE
    assert 'opencv-python-headless==4' in finding.remedy


def test_missing_pkg_resources(monkeypatch):
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, 'find_spec',
                        lambda name: None if name == 'pkg_resources' else real(name))
    finding = by_name(doctor.check_ground())['setuptools < 82']
    assert finding.state == doctor.BROKEN
    assert 'pip install "setuptools<81"' in finding.remedy


def test_untested_version_is_a_note(versions):
    distribution, tested = compat.installed_stack().packages['mmdet']
    versions[distribution] = '9.9'
    finding = by_name(doctor.check_stack())[distribution]
    assert finding.state == doctor.NOTE
    assert f'{distribution}=={tested}' in finding.remedy


def test_broken_stack(monkeypatch):

    def refuse():
        raise compat.IncompatibleStackError('packages of both stacks are installed: do this')

    monkeypatch.setattr(compat, 'installed_stack', refuse)
    (finding,) = doctor.check_stack()
    assert (finding.state, finding.remedy) == (doctor.BROKEN, 'do this')


def test_unsafe_engine_and_new_cumm(versions, monkeypatch):
    monkeypatch.setattr(doctor, '_import_error', lambda process: '')
    versions['cumm-cu120'] = '0.6.3'
    finding = by_name(doctor.check_compiled())['cumm-cu120 < 0.5']
    assert finding.state == doctor.BROKEN
    monkeypatch.setattr(compat, 'spconv_wheel', lambda: compat.SpconvWheel(
        'spconv', '2.3.8', 'spconv', False, 'a data race: pip uninstall -y spconv'))
    finding = by_name(doctor.check_compiled())['sparse engine']
    assert finding.state == doctor.BROKEN
    assert 'pip uninstall' in finding.remedy


def test_library_that_does_not_load():
    error = doctor._import_error(doctor._try_import('no_such_library'))
    assert 'no_such_library' in error


@pytest.mark.parametrize('capability, arch_list, torch_fits, spconv_fits', [
    ((9, 0), ['sm_80', 'sm_90'], True, True),
    ((8, 6), ['sm_80', 'sm_90'], True, True),
    ((12, 0), ['sm_80', 'sm_90'], False, False),
    ((12, 0), ['sm_90', 'sm_120'], True, False),
    ((5, 2), ['sm_50', 'sm_90'], True, False),
])
def test_gpu_kernels(monkeypatch, capability, arch_list, torch_fits, spconv_fits):
    import torch

    for name, value in dict(is_available=True, get_arch_list=arch_list, device_count=1,
                            get_device_capability=capability, get_device_name='X').items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    found = by_name(doctor.check_torch())
    assert (found['GPU 0 and torch'].state == doctor.OK) == torch_fits
    assert (found['GPU 0 and spconv'].state == doctor.OK) == spconv_fits


def test_a_dangerous_variable(monkeypatch):
    name = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
    monkeypatch.setenv(name, '1')
    assert by_name(doctor.check_environment())[name].state != doctor.OK


def test_a_torch_whose_weights_only_could_be_tricked(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1+cpu')
    assert by_name(doctor.check_torch())['torch'].state == doctor.BROKEN


@pytest.mark.parametrize('missing', ['torch', *(
    pytest.param(name, marks=pytest.mark.slow) for name in ('mmengine', 'rich'))])
def test_runs_where_a_package_is_missing(missing, root):
    """Nothing may be needed to be told what is missing."""
    code = ('import runpy, sys\n'
            f'sys.modules[{missing!r}] = None\n'
            "import mmsparse.doctor as doctor\n"
            "doctor._try_import = lambda module: None\n"
            "doctor._import_error = lambda process: ''\n"
            'sys.exit(doctor.main())')
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True,
                            text=True, cwd=root)
    assert 'Traceback' not in result.stderr, result.stderr
    assert 'broken' in result.stdout
