"""Headless Chromium, for pages."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason='no chromium here: pages are not opened in a browser')
CLICK = '<script>document.querySelectorAll("th button")[{}].click();</script></body>'


def opened(page: Path, click: int | None = None) -> str:
    """The page's HTML after its scripts have run, and perhaps after a click on a column's head."""
    if click is not None:
        text, page = page.read_text(), page.with_name('clicked.html')
        page.write_text(text.replace('</body>', CLICK.format(click)))
    done = subprocess.run([CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                           f'--user-data-dir={page.parent / "browser"}', '--enable-logging=stderr', '--dump-dom',
                           page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'CONSOLE' not in done.stderr, done.stderr  # no error of a script, nothing that the page's policy refused
    return done.stdout
