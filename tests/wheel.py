"""Is there a wheel of mmsparse in this environment?"""
from importlib import metadata

import pytest


def wheel_files() -> list:
    """Files of the installed wheel below ``mmsparse/.mim``."""
    try:
        files = metadata.files('mmsparse') or []
    except metadata.PackageNotFoundError:
        return []
    return [file for file in files if str(file).startswith('mmsparse/.mim/')]


needs_wheel = pytest.mark.skipif(
    not wheel_files(), reason='no wheel of mmsparse is installed here; `make test` does that')
