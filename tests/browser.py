"""A headless Chromium for tests that open a page."""
import contextlib
import shutil

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')


@contextlib.contextmanager
def chromium():
    """The browser; where there is none, the test is skipped."""
    sync_api = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f'no {" or ".join(NAMES)} on the path: apt-get install chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()
