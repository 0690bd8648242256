"""Programs of the operating system that some tests need: found, or installed by apt-get where that is allowed, else the test is skipped."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

INSTALL_SECONDS = 240


def require_chromium() -> str:
    """Path of chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return _require("chromium", lambda: next((path for name in names if (path := shutil.which(name)) is not None), None))


def require_postgres() -> Path:
    """Folder of Postgres' server programs, which Debian keeps off the PATH."""

    def find() -> str | None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
        return next((str(folder) for folder in folders if (folder / "initdb").exists()), None)

    return Path(_require("postgresql", find))


def _require(package: str, find: Callable[[], str | None]) -> str:
    """What `find` finds, at once or after the package is installed; without it the test is skipped, or fails where nothing may be."""
    found = find()
    if found is None and _install(package):
        found = find()
    if found is not None:
        return found
    reason = f"no {package}: not found, and apt-get could not install it (are you root, on Debian or Ubuntu, and online?)"
    if os.environ.get("TRAINPIPE_TESTS_ALLOW_NO_SKIP") == "1":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


def _install(package: str) -> bool:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    for step in (["update"], ["install", "--yes", "--no-install-recommends", package]):
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
            return False
    return True
