"""Folders that are complete or not there: written beside their place, forced to disk, then renamed.

Also the lock that keeps two trainings out of one work folder. Knows nothing of what is in the folders.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainpipe_assets.storage.disk import force_to_disk

PARTIAL = ".partial"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` when the block ends without an error, and not before.

    `folder` must not exist. What an earlier kill left half written is removed first.
    """
    partial = folder.with_name(f"{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    force_to_disk(partial)
    partial.rename(folder)
    force_to_disk(folder.parent, what_is_in_it=False)


@contextmanager
def exclusive(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process alone; the system lets go of it when the process ends, however it ends.

    Waits up to `patience` seconds for another process, such as one that is just leaving its last checkpoint.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "holder"  # not in the lock itself, which each who asks for it empties
    try:
        with FileLock(folder / "lock", timeout=patience):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(f"another training is running in {folder}: {_named_in(holder)}; wait for it, or stop it first") from error


def _named_in(holder: Path) -> str:
    try:
        return holder.read_text()
    except OSError:  # it has just come or gone, or is another user's
        return "a process that cannot be told"
