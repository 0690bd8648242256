"""A real browser for the tests of the UI: Debian's chromium, installed where it is missing, driven without a display."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
INSTALL_SECONDS = 240


def require_chromium() -> str:
    """Path of chromium, installed by apt-get if need be and allowed; without it the test is skipped, or fails where nothing may be."""
    found = _find() or _install()
    if found is not None:
        return found
    reason = "no chromium: not on the PATH, and apt-get could not install it (are you root, on Debian or Ubuntu, and online?)"
    if os.environ.get("TRAINPIPE_TESTS_ALLOW_NO_SKIP") == "1":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


@contextmanager
def open_browser(executable: str) -> Iterator[Browser]:
    """The browser, closed at the end whatever happens."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


def _find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


def _install() -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        try:
            subprocess.run(
                ["apt-get", "-qq", *step],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=INSTALL_SECONDS,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
    return _find()
