"""Verified copies of remote model folders on local disk, in the user's cache folder, bounded in size.

Several processes may fetch, use and prune at once. Whether a remote folder is a whole model is `artifacts.py`'s question.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import platformdirs

CACHE_BYTES = 20 * 1024**3  # the copies used longest ago go when there is more than this
IN_USE_SECONDS = 3600.0  # a copy used since then stays: another process may be reading it
ABANDONED_SECONDS = 24 * 3600.0  # what a killed download left behind


def cache_folder() -> Path:
    """Where the copies are: `trainpipe/models` in the user's cache folder (XDG_CACHE_HOME, by default ~/.cache)."""
    return platformdirs.user_cache_path("trainpipe") / "models"


def cached(name: str, fetch: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> Path:
    """The copy called `name`: the one that is there if it `is_whole`, else what `fetch` writes into an empty folder.

    It appears whole or not at all. Of two processes that fetch it at once, one copy stays and both use it.
    """
    folder = cache_folder() / name
    if not (folder.is_dir() and is_whole(folder)):
        _discard(folder)
        staging = _beside(folder)
        staging.mkdir(parents=True, mode=0o700)
        try:
            fetch(staging)
            _settle(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        folder.touch()
        prune(keep=folder)
    folder.touch()
    return folder


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")


def _settle(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first: its copy is as good
            raise


def _discard(folder: Path) -> None:
    """Take a folder out of the way in one step, so that no reader sees half of it."""
    doomed = _beside(folder)
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def prune(keep: Path) -> None:
    """Remove the copies used longest before `keep` until the rest fits the bound, and what killed downloads left behind.

    What another process takes away meanwhile is not there.
    """
    now, found = keep.stat().st_mtime, list[tuple[float, int, Path]]()
    for path in keep.parent.iterdir():
        with suppress(FileNotFoundError):
            if path.is_dir():
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                found.append((path.stat().st_mtime, size, path))
    total = 0
    for used, size, path in sorted(found, reverse=True):
        if path.name.startswith("."):
            if now - used > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
            continue
        total += size
        if total > CACHE_BYTES and path != keep and now - used > IN_USE_SECONDS:
            _discard(path)
