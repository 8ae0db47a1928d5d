"""The installer, and an environment without pip beside that of the tests."""
import importlib.util
import subprocess
import sys
from pathlib import Path


def load_installer():
    path = Path(__file__).resolve().parent.parent / 'requirements' / 'install.py'
    spec = importlib.util.spec_from_file_location('mmsparse_install', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare_environment(installer, folder):
    """A new one that sees all packages of this one but mmsparse."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    environment = installer.Environment('stock', folder)
    code = 'import sysconfig; print(sysconfig.get_path("platlib"))'
    here, there = (subprocess.run([python, '-c', code], capture_output=True, text=True,
                                  check=True).stdout.strip()
                   for python in (environment.python, sys.executable))
    outside = folder / 'outside'
    outside.mkdir()
    for entry in Path(there).iterdir():
        if not entry.name.startswith('mmsparse'):
            (outside / entry.name).symlink_to(entry)
    (Path(here) / 'outside.pth').write_text(str(outside))
    return environment
