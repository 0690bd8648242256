"""The browser and the webserver that the tests of the UI share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from trainpipe_assets.pipeline.resources import lake_from_environment
from trainpipe_assets.samples import Samples, fetch_samples
from trainpipe_tests.programs import REPOSITORY, Installation
from trainpipe_tests.system_programs import require_chromium
from trainpipe_tests.ui.webserver import Webserver, start_webserver

BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEW = ViewportSize(width=1440, height=1000)
PAGE_MILLISECONDS = 60_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests: the system's chromium, without a display."""
    executable = require_chromium()
    expect.set_options(timeout=PAGE_MILLISECONDS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=BROWSER_FLAGS, timeout=PAGE_MILLISECONDS)
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="session")
def samples() -> Samples:
    """The sample corpora and base model."""
    return fetch_samples(REPOSITORY / "data" / "samples", REPOSITORY / lake_from_environment().models)


@pytest.fixture(scope="module")
def webserver(browser: Browser, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    """A healthy `dagster dev` with an empty lake and nothing landed; killed at the end."""
    root = tmp_path_factory.mktemp("dagster_dev")
    place = Installation(root, samples.base_model.parent.parent)
    (root / "landing" / "reviews").mkdir(parents=True)
    started = start_webserver(place, root / "dagster_dev.log")
    try:
        started.wait_until_healthy()
        yield started
    finally:
        started.kill()


@pytest.fixture
def page(browser: Browser, webserver: Webserver) -> Iterator[Page]:
    """A fresh page of the UI; a script error on it fails the test."""
    opened = browser.new_page(viewport=VIEW, base_url=webserver.url)
    opened.set_default_timeout(PAGE_MILLISECONDS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert not errors, errors


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are kept."""
    folder = REPOSITORY / "artifacts" / "ui"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
