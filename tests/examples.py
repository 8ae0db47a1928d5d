"""On how many cases a property is tried."""
import os

from hypothesis import settings

# Cases are new in every run; a night has time for all of them.
SHARE = 1 if os.environ.get('MMSPARSE_NIGHTLY') else 4


def examples(count, **kwargs):
    """``count`` cases a night, a quarter of them in every other run; of any duration."""
    return settings(max_examples=-(-count // SHARE), deadline=None, **kwargs)
