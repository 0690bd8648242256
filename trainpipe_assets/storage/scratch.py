"""Folders on local disk for what a step sets down while it works, which nobody needs once it has ended, however it ended.

Checkpoints of trainings, which have to outlast their process, are not among them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """An empty folder below `root`, made where missing, until the block ends. What killed processes left there is removed first."""
    for other in root.glob("step-*"):
        _remove_unless_held(other)
    name = uuid4().hex[:12]
    making, folder = root / f".step-{name}", root / f"step-{name}"
    making.mkdir(parents=True)
    with FileLock(making / "lock"):
        making.rename(folder)  # seen by others only now that it is held
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock in `folder`."""
    if not (folder / "lock").exists():
        return False
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except (Timeout, PermissionError):  # another user's is none to be tried
        return True


def _remove_unless_held(folder: Path) -> None:
    """The system lets go of the lock when its process ends."""
    with suppress(Timeout, FileNotFoundError, PermissionError), FileLock(folder / "lock", timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
