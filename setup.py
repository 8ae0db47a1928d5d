"""Packaging: puts configs, tools and the model index where mim looks for them.

mim reads ``mmsparse/.mim/{configs,tools,model-index.yml}`` of an installed package. The MM packages
copy them into their source tree from ``setup.py``; with a build backend that never runs, or leaves
copies behind. Here the build step itself writes them, into the wheel only. All else is in
setup.cfg.
"""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """``build_py`` plus the ``.mim`` folder; an editable install has the originals beside it."""

    def mim_files(self) -> dict:
        """{target in the build folder: source}, Python caches left out."""
        found = {}
        for name in MIM_FILES:
            path = ROOT / name
            files = path.rglob('*') if path.is_dir() else [path]
            for file in files:
                if file.is_file() and '__pycache__' not in file.parts:
                    target = Path(self.build_lib, 'mmsparse', '.mim', file.relative_to(ROOT))
                    found[str(target)] = str(file)
        return found

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if not self.editable_mode:
            for target, source in self.mim_files().items():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list:
        """Name the copies as well, so that ``pip uninstall`` removes them."""
        copies = [] if self.editable_mode else list(self.mim_files())
        return super().get_outputs(include_bytecode) + copies


setup(cmdclass={'build_py': BuildWithMim})
